package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completeWait bounds what a press of the tab key waits for a node.
const completeWait = time.Second

// completeArguments gives every command that takes arguments a completion:
// tables by asking a node, and files only where a file is meant.
func (c *cli) completeArguments(cmd *cobra.Command) {
	for _, below := range cmd.Commands() {
		c.completeArguments(below)
	}
	if cmd.HasSubCommands() || cmd.ValidArgsFunction != nil {
		return
	}
	table, file := strings.Contains(cmd.Use, " <table>") || strings.Contains(cmd.Use, " [table]"), strings.Contains(cmd.Use, "<file>")
	if path := cmd.CommandPath(); path == "pando table drop" || path == "pando table alter" {
		table = true
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case table && len(args) == 0:
			return c.tableNames(), cobra.ShellCompDirectiveNoFileComp
		case file && len(args) == 1:
			return nil, cobra.ShellCompDirectiveDefault
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// tableNames asks a node for its tables. A shell has no place for an error, so
// there are none then.
func (c *cli) tableNames() []string {
	api, err := c.api()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	tables, err := api.Tables(ctx)
	if err != nil {
		return nil
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Name
	}
	return names
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
)

// cli is one execution of the command line: its streams and global flags.
type cli struct {
	in       io.Reader
	out, err io.Writer

	addrs   []string
	output  string
	timeout time.Duration
	tlsDir  string

	running bool   // the command line was understood and its command began
	help    string // where the command that was meant is explained
}

const (
	defaultHTTP = "127.0.0.1:7301"
	envAddr     = "PANDO_ADDR"
	envTLSDir   = "PANDO_TLS_DIR"
)

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	printed := &output{Writer: out}
	c := &cli{in: in, out: printed, err: errOut}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(printed)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = printed.failed()
	}
	if err == nil {
		return exitOK
	}
	c.help = helpFor(cmd)
	if !c.running {
		err = &usageError{err}
		if asksForJSON(args) { // a flag that is not understood hides those behind it
			c.output = "json"
		}
	}
	c.printError(err)
	return exitCode(err)
}

// helpFor says how a command is used and where more is written.
func helpFor(cmd *cobra.Command) string {
	see := "see " + cmd.CommandPath() + " --help"
	if cmd.HasSubCommands() {
		return see
	}
	return "use it as " + cmd.UseLine() + "; " + see
}

func asksForJSON(args []string) bool {
	line := " " + strings.Join(args, " ") + " "
	return strings.Contains(line, " -o json ") || strings.Contains(line, " -ojson ") ||
		strings.Contains(line, " -o=json ") ||
		strings.Contains(line, " --output json ") || strings.Contains(line, " --output=json ")
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "pando",
		Short: "A cluster of replicated, splitting partitions",
		Long: "pando runs the nodes of a cluster and is its operator's tool.\n\n" +
			"Try it: pando demo. Exit codes: 0 done, 1 error, 2 usage, 10 unhealthy,\n" +
			"11 refused by a check, 12 timed out and possibly still under way.",
		SilenceErrors: true, SilenceUsage: true,
		Version: actors.Version,
		Args:    noSuchCommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := root.PersistentFlags()
	f.StringSliceVar(&c.addrs, "addr", addrsFromEnv(), "HTTP addresses of nodes, host:port,... (env "+envAddr+")")
	f.StringVarP(&c.output, "output", "o", "table", "output: table or json")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long to wait for an answer")
	f.StringVar(&c.tlsDir, "tls-dir", os.Getenv(envTLSDir), "directory with certificates, as made by pando cert (env "+envTLSDir+")")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case c.output != "table" && c.output != "json":
			return fmt.Errorf("output %q is neither table nor json", c.output)
		case c.timeout <= 0:
			return fmt.Errorf("timeout %v is not positive", c.timeout)
		}
		if err := cmd.ValidateRequiredFlags(); err != nil {
			return err
		}
		c.running = true
		return nil
	}
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	root.AddCommand(
		c.nodeCommand(), c.demoCommand(), c.statusCommand(), c.membersCommand(), c.partitionCommand(),
		c.tableCommand(), c.recoverCommand(), c.rebalanceCommand(), c.planCommand(), c.taskCommand(), c.explainCommand(), c.hotCommand(), c.anomaliesCommand(), c.checkCommand(),
		c.kvCommand(), c.loadCommand(), c.exportCommand(), c.certCommand(), c.simCommand(), c.versionCommand(),
	)
	c.completeArguments(root)
	return root
}

// must is for calls that only fail when the program itself is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func addrsFromEnv() []string {
	if s := os.Getenv(envAddr); s != "" {
		return strings.Split(s, ",")
	}
	return []string{defaultHTTP}
}

// within bounds a command that asks nodes by --timeout.
func (c *cli) within(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), c.timeout)
}

// group is a command that only has commands below it. Without one of them, or
// with another word, the command line makes no sense.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: noSuchCommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(below...)
	return cmd
}

// noSuchCommand refuses what is not one of a group's commands.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	meant := cmd.SuggestionsFor(args[0])
	if len(meant) == 0 {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])
	}
	return fmt.Errorf("%s has no command %q; is %s meant?", cmd.CommandPath(), args[0], strings.Join(meant, " or "))
}

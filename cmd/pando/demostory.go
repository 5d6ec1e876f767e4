package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

const (
	// hotKey is the key of the demo's table by which its load is told what is hot.
	hotKey = "hot"
	// hotLook is how often the load looks at it.
	hotLook = 500 * time.Millisecond
	// storyWait bounds one step of it.
	storyWait = 2 * time.Minute
	// bySplitPolicy is who begins splits that nobody asked for.
	bySplitPolicy = "split policy"
	// fourthNode is who joins in the story.
	fourthNode = "n4"
)

// storyStep is one command of the story that the demo tells.
type storyStep struct {
	what string
	args []string
	join bool // the command runs a node, and does not end by itself
	// until is what is waited for after it when the story runs by itself; nil: nothing.
	until func(context.Context, *httpapi.Client) bool
}

// story is a hot range, a split, a node that joins, and the rebalance, each by one
// command.
func (d *demo) story() []storyStep {
	step := func(what, line string) storyStep { return storyStep{what: what, args: strings.Fields(line)} }
	fourth := []string{
		"node", "--cluster", "demo", "--id", fourthNode, "--zone", "d", "--dir", filepath.Join(d.dir, fourthNode), "--join", d.nodes[0].node.GossipAddr(),
		"--listen", freePort(7104), "--gossip", freePort(7204), "--http", freePort(7304), "--wal-segment-bytes", fmt.Sprint(demoSegment),
	}
	return []storyStep{
		step("make a range hot: most of the load goes to the keys user-60...", "kv put "+demoTable+" "+hotKey+" user-60"),
		step("see it", "hot --table "+demoTable),
		{what: "let it divide itself: what one partition may carry", args: strings.Fields("table alter " + demoTable + " --auto-split auto --split-load 150"), until: dividedByLoad},
		step("what has become of it?", "hot --table "+demoTable),
		step("divide another one by hand, while it serves", "partition split "+demoTable+" --at user-10"),
		{what: "a fourth node joins (in a terminal of its own, or with & behind it)", args: fourth, join: true},
		step("give it its share", "rebalance --apply --wait 2m"),
		step("why is a partition where it is?", "explain partition g3"),
		step("is everything as it should be, and are all replicas equal?", "check --digests"),
	}
}

// commandLine is a step as somebody types it.
func (d *demo) commandLine(s storyStep) string {
	line := program() + " " + strings.Join(s.args, " ")
	if !s.join {
		line += addrFlag(d.nodes[0].web.Addr())
	}
	return line
}

// tell runs the story by itself: each command as a user would give it, against the
// load that goes on. It fails if a command does, or if the load had an error.
func (d *demo) tell(ctx context.Context, l *demoLoad) error {
	for i, s := range d.story() {
		fmt.Fprintf(d.cli.err, "\n%d. %s\n$ %s\n", i+1, s.what, d.commandLine(s))
		if err := d.tellStep(ctx, s); err != nil {
			return fmt.Errorf("step %d of the story: %w", i+1, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d.pause):
		}
	}
	done, failed := l.all()
	fmt.Fprintf(d.cli.err, "\nthe load did %d operations meanwhile, %d failed\n", done, failed)
	if failed > 0 {
		return &partition.Error{Code: partition.CodeInternal, Why: fmt.Sprintf("%d operations of the load failed", failed), Next: "run it again with --verbose"}
	}
	return nil
}

// tellStep runs one command in this process.
func (d *demo) tellStep(ctx context.Context, s storyStep) error {
	ctx, cancel := context.WithTimeout(ctx, storyWait)
	defer cancel()
	if s.join {
		return d.join(ctx)
	}
	args := append([]string{"--addr", d.nodes[0].web.Addr(), "-o", d.cli.output}, s.args...)
	if code := execute(ctx, args, strings.NewReader(""), d.cli.out, d.cli.err); code != exitOK {
		return fmt.Errorf("%s ends with %d", strings.Join(s.args, " "), code)
	}
	if s.until == nil {
		return nil
	}
	api := &httpapi.Client{Addrs: []string{d.nodes[0].web.Addr()}}
	if !poll(ctx, func() bool { return s.until(ctx, api) }) {
		return fmt.Errorf("%s has not come about: %w", s.what, context.Cause(ctx))
	}
	return nil
}

// dividedByLoad reports whether a split that nobody asked for is done.
func dividedByLoad(ctx context.Context, api *httpapi.Client) bool {
	tasks, err := api.Tasks(ctx)
	return err == nil && slices.ContainsFunc(tasks, func(t actors.TaskInfo) bool {
		return t.Kind == "split" && t.By == bySplitPolicy && t.Succeeded()
	})
}

// join starts the fourth node in this process, and waits until it is there.
func (d *demo) join(ctx context.Context) error {
	if err := d.startNode(ctx, len(d.nodes), "d"); err != nil {
		return err
	}
	var last error
	m := d.nodes[len(d.nodes)-1]
	if err := m.waitReady(ctx, func(why error) { last = why }); err != nil {
		return errors.Join(err, last)
	}
	api := &httpapi.Client{Addrs: []string{d.nodes[0].web.Addr()}}
	seen := poll(ctx, func() bool {
		nodes, err := api.Nodes(ctx)
		return err == nil && alive(nodes, fourthNode)
	})
	if !seen {
		return fmt.Errorf("node %s is not seen by the others: %w", fourthNode, context.Cause(ctx))
	}
	return nil
}

func alive(nodes []actors.NodeInfo, id partition.NodeID) bool {
	for _, n := range nodes {
		if n.Node == id && n.Status == "alive" {
			return true
		}
	}
	return false
}

// watchHot tells the load what is hot, as the key in the table says.
func (d *demo) watchHot(ctx context.Context, l *demoLoad) {
	store := httpapi.ClientStore{Client: d.nodes[0].node.Client()}
	tick := time.NewTicker(hotLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limited, cancel := context.WithTimeout(ctx, demoPatience)
		v, err := store.Get(limited, demoTable, []byte(hotKey), httpapi.ReadOptions{})
		cancel()
		switch {
		case err == nil:
			l.setHot(string(v.Bytes))
		case isNotFound(err):
			l.setHot("")
		}
	}
}

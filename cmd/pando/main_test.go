package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary also the pando command, so that scripts and
// end-to-end tests run the real command line in processes of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pando": main})
}

// scriptCommands are what scripts have besides testscript's own.
func scriptCommands(t *testing.T) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// exits <code> <command> <args>...: the command ends with that exit code.
		"exits": func(ts *testscript.TestScript, _ bool, args []string) {
			want, got := runCommand(ts, args)
			if got != want {
				ts.Fatalf("exit code %d, want %d", got, want)
			}
		},
		// until <code> <command> <args>...: it does so sooner or later.
		"until": func(ts *testscript.TestScript, _ bool, args []string) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if !poll(ctx, func() bool { want, got := runCommand(ts, args); return got == want }) {
				ts.Fatalf("it never ends with exit code %s", args[0])
			}
		},
		// freeport <variable>...: each variable becomes a port that nobody holds.
		"freeport": func(ts *testscript.TestScript, _ bool, args []string) {
			for i, addr := range freePorts(t, len(args)) {
				_, port, err := net.SplitHostPort(addr)
				ts.Check(err)
				ts.Setenv(args[i], port)
			}
		},
		// bytes <file> <n>: writes a file with n bytes; bytes <variable>= <n> sets it.
		"bytes": func(ts *testscript.TestScript, _ bool, args []string) {
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			x := strings.Repeat("x", n)
			if name, ok := strings.CutSuffix(args[0], "="); ok {
				ts.Setenv(name, x)
				return
			}
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(x), 0o600))
		},
		// pick <variable> <regexp> <file>: sets it to what the first group matches.
		"pick": func(ts *testscript.TestScript, _ bool, args []string) {
			found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile(args[2]))
			if len(found) < 2 {
				ts.Fatalf("%q is not in %s", args[1], args[2])
			}
			ts.Setenv(args[0], found[1])
		},
		// lines <file> <n>: writes a file with n lines, each with a key and a value.
		"lines": func(ts *testscript.TestScript, _ bool, args []string) {
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), inputLines(n), 0o600))
		},
	}
}

// runCommand runs args[1:] and returns the exit code wanted, args[0], and had.
func runCommand(ts *testscript.TestScript, args []string) (want, got int) {
	if len(args) < 2 {
		ts.Fatalf("give an exit code and a command")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	return want, got
}

// inputLines are n lines like those of UnicodeData.txt: a key, and more columns.
func inputLines(n int) []byte {
	var b []byte
	for i := range n {
		b = fmt.Appendf(b, "%06X;CHARACTER NUMBER %d;Lu;0;L;;;;;N;;;;%04X;\"'\\\n", i*7, i, i)
	}
	return b
}

// TestCommandLine runs the scripts that need no node.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata/script/alone", Cmds: scriptCommands(t), RequireExplicitExec: true})
}

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
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
func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// exits <code> <command> <args>...: the command ends with that exit code.
		"exits": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < 2 {
				ts.Fatalf("usage: exits code command args...")
			}
			want, err := strconv.Atoi(args[0])
			ts.Check(err)
			got := 0
			err = ts.Exec(args[1], args[2:]...)
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				got = exit.ExitCode()
			} else if err != nil {
				ts.Fatalf("%v", err)
			}
			if got != want {
				ts.Fatalf("exit code %d, want %d", got, want)
			}
		},
		// freeport <variable>...: each variable becomes a port that nobody holds.
		"freeport": func(ts *testscript.TestScript, _ bool, args []string) {
			for _, name := range args {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				ts.Check(err)
				_, port, err := net.SplitHostPort(l.Addr().String())
				ts.Check(err)
				ts.Check(l.Close())
				ts.Setenv(name, port)
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
		// lines <file> <n>: writes a file with n lines, each with a key and a value.
		"lines": func(ts *testscript.TestScript, _ bool, args []string) {
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), inputLines(n), 0o600))
		},
	}
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
	testscript.Run(t, testscript.Params{Dir: "testdata/script/alone", Cmds: scriptCommands(), RequireExplicitExec: true})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// process is a pando that was started here. Nothing else is ever signalled.
type process struct {
	name string
	log  string // file with what it printed on the standard error
	out  string // and on the standard output
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was waited for
}

// start runs pando with the arguments, without waiting for it.
func (t *trial) start(name string, args ...string) (*process, error) {
	return t.startBy((*exec.Cmd).Start, name, args...)
}

// startBy is start in another way than usual, such as in a namespace.
func (t *trial) startBy(begin func(*exec.Cmd) error, name string, args ...string) (*process, error) {
	p := &process{
		name: name, done: make(chan struct{}), cmd: exec.Command(t.bin, args...),
		log: filepath.Join(t.dir, name+".err"), out: filepath.Join(t.dir, name+".out"),
	}
	p.cmd.Dir = t.dir
	var files [2]*os.File
	for i, path := range []string{p.out, p.log} {
		f, err := os.Create(path)
		if err != nil {
			return nil, fmt.Errorf("make a log: %w", err)
		}
		defer f.Close() // the process has its own
		files[i] = f
	}
	p.cmd.Stdout, p.cmd.Stderr = files[0], files[1]
	if err := begin(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	t.mu.Lock()
	t.processes = append(t.processes, p)
	t.mu.Unlock()
	return p, nil
}

// signal sends a signal unless the process has ended.
func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to %s: %w", s, p.name, err)
	}
	return nil
}

// kill ends the process with SIGKILL, if it has not ended, and waits for that.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL) // our own child; it fails only when it is gone
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (p *process) wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for %s: %w", p.name, context.Cause(ctx))
	}
}

// printed is what a process wrote to its standard error, shortened.
func (p *process) printed() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

// outcome is how a command ended.
type outcome struct {
	code     int
	out, err string
}

// command runs pando to its end. The name of its files says what it did.
func (t *trial) command(ctx context.Context, args ...string) (outcome, error) {
	t.mu.Lock()
	t.commands++
	name := fmt.Sprintf("command%d-%s", t.commands, args[0])
	t.mu.Unlock()
	p, err := t.start(name, args...)
	if err != nil {
		return outcome{}, err
	}
	code, err := p.wait(ctx)
	if err != nil {
		p.kill()
		return outcome{}, err
	}
	out, err := os.ReadFile(p.out)
	if err != nil {
		return outcome{}, fmt.Errorf("read the output of %s: %w", name, err)
	}
	return outcome{code, string(out), p.printed()}, nil
}

// must runs pando and wants exit code 0.
func (t *trial) must(ctx context.Context, args ...string) (string, error) {
	o, err := t.command(ctx, args...)
	if err == nil && o.code != 0 {
		err = fmt.Errorf("pando %s: exit code %d: %s", strings.Join(args, " "), o.code, o.err)
	}
	return o.out, err
}

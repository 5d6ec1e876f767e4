//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inSandbox, in the environment, tells a process that it is in a sandbox.
const inSandbox = "PANDO_CHAOS_SANDBOX"

// stopGrace is what a program in a sandbox gets for its own cleaning after it was
// told to stop.
const stopGrace = 30 * time.Second

func lockThread() { runtime.LockOSThread() }

// InSandbox reports whether this process is in a sandbox.
func InSandbox() bool { return os.Getenv(inSandbox) != "" }

// Sandboxed runs this program with the same arguments in a sandbox and returns
// its exit code. The sandbox has mounts and process numbers of its own; when the
// program in it ends, or this one does, the kernel ends every process that it
// started and takes its mounts away. When the context ends it is told so by an
// interrupt.
func Sandboxed(ctx context.Context, args []string, out io.Writer) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Env = append(os.Environ(), inSandbox+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a Ctrl-C comes once, from here
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopGrace
	// The kernel ends the child with the thread that began it, so that must last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), nil
	case err != nil:
		return 1, fmt.Errorf("run in a sandbox: %w", err)
	}
	return 0, nil
}

// EnterSandbox makes the sandbox's mounts private and shows its processes under
// /proc. The program that Sandboxed has begun calls it first.
func EnterSandbox() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

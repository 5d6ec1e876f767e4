//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is an ext4 file system of its own: an image on a small tmpfs, a loop
// device over it, and the mount. It belongs to one goroutine at a time.
type Disk struct {
	Dir string // where it is mounted

	under   string // where the tmpfs with the image is mounted
	size    int64
	loop    *os.File // keeps the device while nothing is mounted
	path    string   // of the device
	mounted bool
	tmpfs   bool
	frozen  bool
	// suspect: the file system may have lost some of its own writes.
	suspect bool
}

const (
	// ext4Shutdown is EXT4_IOC_SHUTDOWN, noLogFlush its flag that drops what the
	// journal has not written.
	ext4Shutdown = 0x8004587d
	noLogFlush   = 2
	// freezeFS and thawFS are FIFREEZE and FITHAW.
	freezeFS = 0xc0045877
	thawFS   = 0xc0045878

	imageName, ballastName = "image", "ballast"
	// syncsSettle is waited between the stop of a process and its power cut: a
	// sync that the cut overtakes would return success and be lost, which no
	// disk does.
	syncsSettle = 25 * time.Millisecond
	// unmountTries is how often an unmount that finds the file system busy is
	// tried again, unmountPause the time between.
	unmountTries = 100
	unmountPause = 20 * time.Millisecond
	// loopTries is how often a free loop device is looked for: others may take
	// the one that was found.
	loopTries = 20
)

// NewDisk makes a disk of that size, in bytes, and mounts it on a directory. What
// is under it lies in another directory. Both are made.
func NewDisk(dir, under string, size int64) (d *Disk, err error) {
	d = &Disk{Dir: dir, under: under, size: size}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a disk for %s: %w", dir, err), d.Close())
		}
	}()
	for _, path := range []string{dir, under} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return d, err
		}
	}
	// A little more than the image, so that it is never the tmpfs that is full
	// unless it shall be.
	opts := fmt.Sprintf("size=%d,mode=700", size+4<<20)
	if err := unix.Mount("tmpfs", under, "tmpfs", 0, opts); err != nil {
		return d, fmt.Errorf("mount tmpfs on %s: %w", under, err)
	}
	d.tmpfs = true
	image := filepath.Join(under, imageName)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return d, err
	}
	if err := os.Truncate(image, size); err != nil {
		return d, err
	}
	if msg, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", image).CombinedOutput(); err != nil {
		return d, fmt.Errorf("mkfs.ext4: %w: %s", err, strings.TrimSpace(string(msg)))
	}
	if err := d.attach(image); err != nil {
		return d, err
	}
	return d, d.mount()
}

// attach takes a free loop device. The kernel frees it when this process has
// ended and nothing is mounted.
func (d *Disk) attach(image string) error {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer ctl.Close()
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		d.path = fmt.Sprintf("/dev/loop%d", n)
		err = d.configure(file)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return errors.New("no loop device is free for long enough to take it")
}

func (d *Disk) configure(file *os.File) error {
	dev, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	c := unix.LoopConfig{Fd: uint32(file.Fd())}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &c); err != nil {
		return fmt.Errorf("configure %s: %w", d.path, err)
	}
	d.loop, err = os.Open(d.path)
	return err
}

func (d *Disk) mount() error {
	if err := unix.Mount(d.path, d.Dir, "ext4", unix.MS_NOATIME, "nodiscard"); err != nil {
		return fmt.Errorf("mount %s on %s: %w", d.path, d.Dir, err)
	}
	d.mounted = true
	return nil
}

// ioctl calls the mounted file system.
func (d *Disk) ioctl(what string, request uint, value int) error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, d.Dir, err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), request, value); err != nil {
		return fmt.Errorf("%s %s: %w", what, d.Dir, err)
	}
	return nil
}

// Kill makes the disk dead at once: nothing that was not synced will ever be
// there, and whoever reads or writes gets an error until Revive. The process
// that uses it must be stopped for a moment before, see Settle, unless it is the
// one to find out.
func (d *Disk) Kill() error { return d.ioctl("shut down", ext4Shutdown, noLogFlush) }

// Settle waits until the syncs of a stopped process have come to their end.
func Settle() { time.Sleep(syncsSettle) }

// Revive mounts the disk again, as after a start of the machine. No process may
// use it.
func (d *Disk) Revive() error {
	if err := d.unmount(); err != nil {
		return err
	}
	if d.suspect {
		if err := d.check(); err != nil {
			return err
		}
		d.suspect = false
	}
	return d.mount()
}

// check repairs the file system, as the start of a machine does after errors. One
// that has lost writes may look well when it is mounted, and fail later.
func (d *Disk) check() error {
	const uncorrected = 4 // of the exit code, which is a sum
	msg, err := exec.Command("e2fsck", "-f", "-y", d.path).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() < uncorrected {
		err = nil // errors were corrected
	}
	if err != nil {
		return fmt.Errorf("e2fsck %s: %w: %s", d.path, err, strings.TrimSpace(string(msg)))
	}
	return nil
}

// Sync makes everything durable that was written so far, by whomever.
func (d *Disk) Sync() error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", d.Dir, err)
	}
	return nil
}

// Freeze holds back every write and sync until Thaw.
func (d *Disk) Freeze() error {
	err := d.ioctl("freeze", freezeFS, 0)
	d.frozen = d.frozen || err == nil
	return err
}

// Thaw lets them go on.
func (d *Disk) Thaw() error {
	if !d.frozen {
		return nil
	}
	d.frozen = false
	return d.ioctl("thaw", thawFS, 0)
}

// Fill takes all space but so many bytes.
func (d *Disk) Fill(leave int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(d.Dir, &s); err != nil {
		return fmt.Errorf("look how full %s is: %w", d.Dir, err)
	}
	n := int64(s.Bavail)*s.Bsize - leave
	if n <= 0 {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(d.Dir, ballastName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, n)
	if errors.Is(err, unix.ENOSPC) {
		err = nil // somebody was faster: it is full
	}
	return errors.Join(err, f.Close())
}

// Free gives back what Fill has taken.
func (d *Disk) Free() error { return remove(filepath.Join(d.Dir, ballastName)) }

// BreakSyncs takes all space under the image, so that what is written to blocks
// that were never written before is lost, and the sync that finds out fails.
func (d *Disk) BreakSyncs() error {
	d.suspect = true
	f, err := os.OpenFile(filepath.Join(d.under, ballastName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	b := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(b)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// MendSyncs gives the space back. The file system may have given up meanwhile:
// Revive it.
func (d *Disk) MendSyncs() error { return remove(filepath.Join(d.under, ballastName)) }

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *Disk) unmount() error {
	if !d.mounted {
		return nil
	}
	if err := d.Thaw(); err != nil {
		return err
	}
	err := unmount(d.Dir)
	d.mounted = err != nil
	return err
}

// unmount tries for a while: the last user may not be quite gone.
func unmount(dir string) (err error) {
	for range unmountTries {
		if err = unix.Unmount(dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(unmountPause)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// Close takes everything away again, and the data with it.
func (d *Disk) Close() error {
	errs := []error{d.unmount()}
	if d.loop != nil {
		errs = append(errs, d.loop.Close())
		d.loop = nil
	}
	if d.tmpfs {
		err := unmount(d.under)
		d.tmpfs = err != nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

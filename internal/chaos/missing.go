//go:build linux

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Missing says what this machine lacks for a lab with so many disks, one sentence
// each, with what to do about it. Nothing is missing if there is none.
func Missing(disks int) []string {
	if os.Geteuid() != 0 {
		return []string{"the user is not root: namespaces, TUN devices and mounts want root (sudo)"}
	}
	var missing []string
	for _, dev := range []struct{ path, module string }{{"/dev/net/tun", "tun"}, {"/dev/loop-control", "loop"}} {
		f, err := os.OpenFile(dev.path, os.O_RDWR, 0)
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s: %v (modprobe %s, and in a container pass the device through)", dev.path, err, dev.module))
			continue
		}
		f.Close()
	}
	for _, tool := range []string{"mkfs.ext4", "e2fsck"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool+": not in PATH (Debian package e2fsprogs)")
		}
	}
	if free, err := freeLoops(); err == nil && free < disks {
		missing = append(missing, fmt.Sprintf("loop devices: %d are free, %d are wanted (losetup -a shows who has them; mknod makes more)", free, disks))
	}
	if !inKernel("ext4") {
		missing = append(missing, "ext4: the kernel does not list it in /proc/filesystems (modprobe ext4)")
	}
	return append(missing, namespaces()...)
}

// freeLoops counts the loop devices that exist and have no file.
func freeLoops() (int, error) {
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return 0, err
	}
	free := 0
	for _, e := range entries {
		n, isLoop := strings.CutPrefix(e.Name(), "loop")
		if !isLoop || n == "" || n == "-control" {
			continue
		}
		if _, err := os.Stat("/sys/block/" + e.Name() + "/loop/backing_file"); os.IsNotExist(err) {
			free++
		}
	}
	return free, nil
}

func inKernel(fs string) bool {
	b, err := os.ReadFile("/proc/filesystems")
	for f := range strings.FieldsSeq(string(b)) {
		if f == fs {
			return true
		}
	}
	return err != nil // it cannot be told
}

// namespaces tries what may be forbidden though the user is root.
func namespaces() []string {
	failed := make(chan error)
	go func() { // on a thread that ends with it, as it may be in another namespace then
		lockThread()
		failed <- unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	}()
	if err := <-failed; err != nil {
		return []string{fmt.Sprintf("namespaces: unshare: %v (a container must be privileged)", err)}
	}
	return nil
}

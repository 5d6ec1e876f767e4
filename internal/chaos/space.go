//go:build linux

package chaos

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Space is a network namespace with one way out, a TUN device. It has no name on
// the machine: it is gone when it was closed and the processes in it have ended.
// Its methods may be called from any goroutine.
type Space struct {
	Addr netip.Addr // of its end of the TUN device

	ns   *os.File
	tun  *os.File
	work chan func() // for the thread that lives in it
	once sync.Once
}

const (
	tunName = "pando0"
	// packetBytes is the largest IP packet in the lab; larger ones cost fewer
	// turns of the hub.
	packetBytes = 9000
)

// NewSpace makes a namespace whose address is addr, in a network of that many bits
// that the hub reaches the others of.
func NewSpace(addr netip.Addr, bits int) (*Space, error) {
	s := &Space{Addr: addr, work: make(chan func())}
	made := make(chan error)
	go s.live(made)
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := s.do(func() error { return s.wire(bits) }); err != nil {
		s.Close()
		return nil, fmt.Errorf("make a TUN device for %s: %w", addr, err)
	}
	return s, nil
}

// live is the thread that is in the namespace. It is never given back, so it ends
// with this function.
func (s *Space) live(made chan<- error) {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		s.ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	}
	made <- err
	if err != nil {
		return
	}
	for f := range s.work {
		f()
	}
}

// do runs f on the namespace's thread.
func (s *Space) do(f func() error) error {
	done := make(chan error)
	s.work <- func() { done <- f() }
	return <-done
}

// wire brings the loopback and the TUN device up.
func (s *Space) wire(bits int) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(tunName)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	s.tun = os.NewFile(uintptr(fd), "tun")
	ctl, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ctl)
	if err := raise(ctl, "lo"); err != nil {
		return err
	}
	mask := net.CIDRMask(bits, 32)
	if err := setAddr(ctl, unix.SIOCSIFADDR, s.Addr.AsSlice()); err != nil {
		return err
	}
	if err := setAddr(ctl, unix.SIOCSIFNETMASK, mask); err != nil {
		return err
	}
	ifr.SetUint32(packetBytes)
	if err := unix.IoctlIfreq(ctl, unix.SIOCSIFMTU, ifr); err != nil {
		return fmt.Errorf("SIOCSIFMTU: %w", err)
	}
	return raise(ctl, tunName)
}

func setAddr(ctl int, request uint, addr []byte) error {
	ifr, err := unix.NewIfreq(tunName)
	if err != nil {
		return err
	}
	if err := ifr.SetInet4Addr(addr); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(ctl, request, ifr); err != nil {
		return fmt.Errorf("ioctl %#x with %v: %w", request, addr, err)
	}
	return nil
}

// raise brings a device up.
func raise(ctl int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(ctl, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

// Start starts a command in the namespace. The process is killed by the kernel
// when this one ends, or when the space is closed.
func (s *Space) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return s.do(cmd.Start)
}

// Dial connects from inside the namespace.
func (s *Space) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = s.Enter(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen listens inside the namespace.
func (s *Space) Listen(network, addr string) (l net.Listener, err error) {
	err = s.Enter(func() error {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

// ListenPacket is Listen for datagrams.
func (s *Space) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	err = s.Enter(func() error {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	return c, err
}

// Enter runs f on a thread that is in the namespace for so long. A socket stays
// where it was made. Unlike do it is for what may wait.
func (s *Space) Enter(f func() error) error {
	done := make(chan error)
	go func() {
		// The thread ends with this goroutine, so that no other one ever runs in
		// a namespace by mistake.
		runtime.LockOSThread()
		err := unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET)
		if err != nil {
			err = fmt.Errorf("enter a network namespace: %w", err)
		} else {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Close ends the namespace, its TUN device and every process in it. No other
// method may run or be called after it.
func (s *Space) Close() {
	s.once.Do(func() {
		close(s.work)
		if s.tun != nil {
			s.tun.Close()
		}
		s.ns.Close()
	})
}

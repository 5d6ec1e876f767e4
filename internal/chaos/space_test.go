//go:build linux

package chaos

import (
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// lab makes a hub with spaces, or skips the test where there can be none.
func lab(t *testing.T, n int) (*Hub, []*Space) {
	t.Helper()
	if missing := Missing(0); len(missing) > 0 {
		t.Skip(strings.Join(missing, "; "))
	}
	h := NewHub(1)
	t.Cleanup(h.Close)
	var spaces []*Space
	for i := range n {
		s, err := NewSpace(netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), 24)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		if port := h.Join(s); port != i {
			t.Fatalf("port %d of space %d", port, i)
		}
		spaces = append(spaces, s)
	}
	return h, spaces
}

func TestHubBetweenSpaces(t *testing.T) {
	h, s := lab(t, 3)
	c, err := CheckHub(h, s[1], s[2], 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("round trips: %s idle, %s with %s each way", c.Idle, c.Delayed, checkDelay)
}

// TestCheckHubSees wants the self-check to find a hub that does not obey.
func TestCheckHubSees(t *testing.T) {
	for name, wrong := range map[string][2]int{"the delay is elsewhere": {0, 1}, "no way is what it is said to be": {2, 2}} {
		h, s := lab(t, 3)
		if _, err := CheckHub(h, s[1], s[2], wrong[0], wrong[1]); err == nil {
			t.Errorf("%s, and nobody sees it", name)
		}
	}
}

func TestConnectionAcrossFaults(t *testing.T) {
	h, s := lab(t, 2)
	l, err := s[1].Listen("tcp4", s[1].Addr.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(got)
			return
		}
		b, _ := io.ReadAll(c)
		got <- string(b)
	}()
	c, err := s[0].Dial(t.Context(), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := Way{Loss: 0.05, Repeat: 0.1, Late: 0.1, LateBy: 3e6, Jitter: 1e6, Replay: 0.1}
	h.Set(0, 1, w)
	h.Set(1, 0, w)
	want := strings.Repeat("all of it arrives, once and in order. ", 5000)
	if _, err := io.WriteString(c, want); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != want {
		t.Errorf("%d bytes arrived of %d, or others", len(b), len(want))
	}
	if n := h.Counts(); n.Lost == 0 || n.Repeated == 0 || n.Late == 0 {
		t.Errorf("nothing was done to the packets: %+v", n)
	}
}

func TestResetEndsConnections(t *testing.T) {
	h, s := lab(t, 2)
	l, err := s[1].Listen("tcp4", s[1].Addr.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
		ended <- err
	}()
	c, err := s[0].Dial(t.Context(), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "before"); err != nil {
		t.Fatal(err)
	}
	h.setResets(0, 1, true)
	if _, err := io.WriteString(c, "after"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection ended with %v", err)
	}
}

// TestRefuse wants a refused way to end connections, and to let none begin.
func TestRefuse(t *testing.T) {
	h, s := lab(t, 2)
	l, err := s[1].Listen("tcp4", s[1].Addr.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := s[0].Dial(t.Context(), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h.Set(0, 1, Way{Refuse: true})
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection ended with %v", err)
	}
	if _, err := s[0].Dial(t.Context(), "tcp4", l.Addr().String()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("another one ended with %v", err)
	}
}

// TestSpaceStartsCommands wants a command to see the namespace's device and no other.
func TestSpaceStartsCommands(t *testing.T) {
	_, s := lab(t, 1)
	var out strings.Builder
	cmd := exec.Command("cat", "/proc/self/net/dev")
	cmd.Stdout = &out
	if err := s[0].Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), tunName+":") || strings.Contains(out.String(), "eth0:") {
		t.Errorf("the command saw\n%s", out.String())
	}
}

package link

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"pando.dev/pando/partition"
)

// TestBulk moves much more than the window, both ways, and ends in order.
func TestBulk(t *testing.T) {
	const size = 3*bulkWindow + 12_345
	sums := make(chan [32]byte, 1)
	a, _ := linked(t, func(c *Config) {
		c.OnBulk = func(from partition.NodeID, b *Bulk) {
			h := sha256.New()
			n, err := io.Copy(h, b)
			if err != nil || n != size || from != "a" {
				t.Errorf("%d bytes from %s, %v", n, from, err)
			}
			sums <- [32]byte(h.Sum(nil))
			_, _ = b.Write([]byte("done"))
			_ = b.CloseWrite()
			_, _ = io.Copy(io.Discard, b)
		}
	})
	b, err := a.OpenBulk(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data := make([]byte, size)
	src := rand.New(rand.NewPCG(1, 2))
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(data[i:], src.Uint64())
	}
	if n, err := b.Write(data); n != size || err != nil {
		t.Fatal(n, err)
	}
	if err := errors.Join(b.CloseWrite(), b.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "done" {
		t.Errorf("%q, %v", got, err)
	}
	if got := receive(t, sums); got != sha256.Sum256(data) {
		t.Error("other bytes arrived")
	}
	if _, err := b.Write([]byte("more")); !errors.Is(err, partition.ErrClosed) {
		t.Errorf("after CloseWrite: %v", err)
	}
}

// TestBulkWaitsForTheReader: a writer gets as far as the window; heartbeats and
// calls go on beside it.
func TestBulkWaitsForTheReader(t *testing.T) {
	hold := make(chan struct{})
	read := make(chan int, 1)
	a, _ := linked(t, func(c *Config) {
		c.OnBulk = func(_ partition.NodeID, b *Bulk) {
			<-hold
			n, _ := io.Copy(io.Discard, b)
			read <- int(n)
		}
	})
	b, err := a.OpenBulk(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	wrote := make(chan int, 1)
	go func() {
		n, _ := b.Write(make([]byte, 2*bulkWindow))
		_ = b.CloseWrite()
		wrote <- n
	}()
	eventually(t, "the window is used up", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.credit == 0
	})
	if _, err := a.Call(t.Context(), "b", bytes.Repeat([]byte{1}, 1<<20)); err != nil {
		t.Error(err)
	}
	if len(wrote) != 0 {
		t.Error("wrote beyond the window")
	}
	close(hold)
	if n, m := receive(t, wrote), receive(t, read); n != 2*bulkWindow || m != n {
		t.Errorf("wrote %d, read %d", n, m)
	}
}

func TestBulkEndsWithAnError(t *testing.T) {
	a, b := linked(t, func(c *Config) {
		c.MaxBulk = 1
		c.OnBulk = func(_ partition.NodeID, b *Bulk) { _, _ = io.Copy(io.Discard, b) }
	})
	x, err := a.OpenBulk(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := a.OpenBulk(t.Context(), "b"); !errors.As(err, &refused) || refused.Refusal != RefusedBusy {
		t.Errorf("a second transfer: %v", err)
	}
	x.Close()
	if _, err := x.Read(make([]byte, 1)); !errors.Is(err, partition.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	eventually(t, "the transfer is given back", func() bool { return (*b.peers.Load())["a"].bulk.Load() == 0 })
	y, err := a.OpenBulk(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := y.Read(make([]byte, 1)); err == nil {
		t.Error("the other side closed, and reading goes on")
	}
	if _, err := a.OpenBulk(t.Context(), "b"); err == nil {
		t.Error("opened a transfer to a closed node")
	}
}

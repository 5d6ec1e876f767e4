package copies

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// Stream is a transfer between two nodes; *link.Bulk is one.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite tells the other side that nothing more comes.
	CloseWrite() error
}

// Base is the place in a group's log at which a copy was made: what the log of
// the replica that gets it begins behind.
type Base struct {
	partition.Position
	Sum uint32 // checksum of the record there
	// Configuration is the record of the configuration in force there.
	Configuration partition.Record
}

// Host is what a source needs of its node. Its methods are called from any
// goroutine and may block until ctx ends.
type Host interface {
	// Checkpoint makes dir, which does not exist, a copy of the group's state as
	// it is now. On an error nothing of dir remains.
	Checkpoint(ctx context.Context, g partition.GroupID, dir string) (store.Manifest, error)
	// Describe tells what the log has at an index that the state has just
	// reached. CodeNotFound if it does not know any more: a new checkpoint is
	// made then.
	Describe(g partition.GroupID, index partition.Index) (Base, error)
}

// Config configures Copies. Dir, Host and Open are required; the zero value of
// every other field works.
type Config struct {
	// Dir is the node's data directory. Copies are staged in Dir/stage, which is
	// theirs alone: New empties it.
	Dir string
	// Host serves the state of this node's replicas.
	Host Host
	// Open opens a transfer to a node, which is served there by Serve.
	Open func(ctx context.Context, n partition.NodeID) (Stream, error)

	// BytesPerSecond bounds what is sent, all copies together, and what is received
	// (default 64 MiB/s; negative: no bound). Twice as much is twice as fast, and at about 64 MiB/s
	// to one disk the p99 of commits beside it grows by half. SetRate changes it.
	BytesPerSecond int64
	// Concurrent bounds the copies under way at once, each way (default 2), and
	// Waiting those that wait for their turn (default 16); beyond, CodeBusy.
	Concurrent, Waiting int
	// Checkpoints bounds the checkpoints held at once (default 4), Hold is how
	// long one is held after its last use, for a fetcher that lost its
	// connection to go on (default 2 min). A held one keeps the files from being
	// deleted that compactions have replaced since.
	Checkpoints int
	Hold        time.Duration
	// Stall is how long the other side may bring nothing before a transfer is
	// given up (default 30 s).
	Stall time.Duration
	// Attempts is how often a fetch tries one source in a row without getting
	// anything (default 8), with waits from 100 ms, doubling, to 5 s.
	Attempts int
	// Keep is how long the tables of a fetch that did not come to an end are kept
	// for the next one of the group (default 10 min; negative: not at all).
	Keep time.Duration
	// Free returns the free and total bytes of Dir's disk (default: asks it).
	Free func() (free, total int64, err error)
	// MinFreeBytes is what a copy leaves free (default 5 % of the disk, as the
	// log's).
	MinFreeBytes int64
	// MaxBytes bounds a copy (default 16 TiB).
	MaxBytes int64
	// Verify, if set, opens a received copy and returns the index of its state.
	Verify func(dir string) (partition.Index, error)
	// Logger is optional.
	Logger *slog.Logger
}

const (
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
	// beat is how often a source says that a fetcher still has to wait.
	beat = 2 * time.Second
	// bursts is how much may be sent at once after a pause, in seconds of the
	// rate.
	bursts = 0.02
	// readsPerSend is how much faster than it is sent a state may be read for
	// its checksums.
	readsPerSend = 4
	// spaceBytes is after how many bytes the free space is looked at again.
	spaceBytes = 64 << 20
)

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Host == nil || c.Open == nil {
		return c, partition.Errorf(partition.CodeInvalid, "copies need Dir, Host and Open")
	}
	c.BytesPerSecond = cmp.Or(c.BytesPerSecond, 64<<20)
	c.Concurrent = orPositive(c.Concurrent, 2)
	c.Waiting = orPositive(c.Waiting, 16)
	c.Checkpoints = orPositive(c.Checkpoints, 4)
	c.Attempts = orPositive(c.Attempts, 8)
	c.Hold = orPositive(c.Hold, 2*time.Minute)
	c.Stall = orPositive(c.Stall, 30*time.Second)
	c.Keep = cmp.Or(c.Keep, 10*time.Minute)
	c.MaxBytes = orPositive(c.MaxBytes, 16<<40)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func orPositive[T int | int64 | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Cluster answers how the cluster is, as one node sees it.
type Cluster interface {
	// Ready returns nil when the node serves, else why it does not.
	Ready() error
	Status(ctx context.Context) (actors.ClusterStatus, error)
	Members() []actors.MemberInfo
	// Partitions lists those of one table, or of all tables for "".
	Partitions(ctx context.Context, table string) ([]actors.PartitionInfo, error)
	Partition(ctx context.Context, g partition.GroupID) (actors.PartitionInfo, error)
}

// Catalog lists and changes tables.
type Catalog interface {
	Tables() []actors.TableInfo
	CreateTable(ctx context.Context, spec actors.TableSpec) (actors.TableInfo, error)
	AlterTable(ctx context.Context, name string, change actors.TableChange) (actors.TableInfo, error)
	DropTable(ctx context.Context, name string) error
}

// Store reads and writes the pairs of key-value tables. Errors are
// *partition.Error; a missing key is CodeNotFound, a condition that does not
// hold is CodeRefused.
type Store interface {
	Get(ctx context.Context, table string, key []byte, o ReadOptions) (Value, error)
	// Put stores the value if the condition holds and returns its version.
	Put(ctx context.Context, table string, key, value []byte, cond Condition) (Written, error)
	Delete(ctx context.Context, table string, key []byte, cond Condition) (Shown, error)
	// Scan returns up to limit pairs of the range in order.
	Scan(ctx context.Context, table string, r partition.KeyRange, limit int, o ReadOptions) (Scanned, error)
}

// Meter is where /metrics finds the node's own numbers.
type Meter interface {
	Counters() []actors.Counter
}

// Version identifies one state of a key. It is opaque: compare for equality.
type Version string

// Value is a stored value and the version that names it.
type Value struct {
	Bytes   []byte
	Version Version
	Shown   Shown
}

// Written is what a write came to.
type Written struct {
	Version Version
	Shown   Shown // the write itself
}

// Scanned is a part of a range. More says that there may be further pairs behind
// the last one.
type Scanned struct {
	Pairs []KV
	More  bool
	Shown Shown
}

// KV is one pair of a scan.
type KV struct {
	Key, Value []byte
}

// Condition restricts a write. The zero value always holds.
type Condition struct {
	Version Version // if set: the key has exactly this version
	Absent  bool    // the key does not exist
}

// Config says what a handler serves. Cluster, Catalog, Store and Meter are
// required; the zero value of everything else works.
type Config struct {
	Cluster Cluster
	Catalog Catalog
	Store   Store
	Meter   Meter
	// Recovery, if set, brings back partitions that are lost.
	Recovery Recovery
	// Operator, if set, changes partitions and takes nodes out of service.
	Operator Operator
	// Balancer, if set, has tasks, and plans some.
	Balancer Balancer
	// Authorize decides whether the request's client has the role; nil lets
	// everyone in, which is only right where nobody else can connect.
	Authorize func(r *http.Request, need cert.Role) error
	Logger    *slog.Logger // default: discard
	// Timeout is a request's deadline when it names none, and MaxTimeout the
	// longest it may name. Default 10 s and 60 s.
	Timeout, MaxTimeout time.Duration
	// MaxValueBytes bounds the body of a PUT (default 1 MiB). The table's own
	// limit may be lower and then answers itself.
	MaxValueBytes int64
	// MaxInFlight bounds requests under way at once; one more is answered busy
	// (default 1,024). Health is never refused.
	MaxInFlight int
	// Pprof serves /debug/pprof/ to admins.
	Pprof bool
}

const (
	defaultTimeout     = 10 * time.Second
	defaultMaxTimeout  = time.Minute
	defaultMaxValue    = 1 << 20
	defaultMaxInFlight = 1024

	maxJSONBytes  = 1 << 20 // of a request's JSON body
	maxScanPairs  = 1000    // of one answer
	scanPairs     = 100     // when the request names no limit
	maxKeyInQuery = 4 << 10 // encoded; beyond it nobody's key limit lies
)

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxTimeout <= 0 {
		c.MaxTimeout = max(defaultMaxTimeout, c.Timeout)
	}
	if c.MaxValueBytes <= 0 {
		c.MaxValueBytes = defaultMaxValue
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	return c
}

func (c Config) validate() error {
	if c.Cluster == nil || c.Catalog == nil || c.Store == nil || c.Meter == nil {
		return partition.Errorf(partition.CodeInvalid, "httpapi: Cluster, Catalog, Store and Meter are required")
	}
	return nil
}

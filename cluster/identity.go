package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pando.dev/pando/cluster/internal/stamp"
	"pando.dev/pando/partition"
)

const (
	lockFile = "LOCK"
	nodeFile = "NODE"
	// nodeFormat is the format of NODE that this program writes.
	nodeFormat = 1
	// MaxClusterNameBytes bounds the name of a cluster, so that it fits the
	// gossip tags beside everything else.
	MaxClusterNameBytes = 48
)

// IdentityOptions say who the node shall be.
type IdentityOptions struct {
	// Cluster is the name of the cluster that the data directory belongs to.
	// Required, except with MintOnly.
	Cluster string
	// Node fixes the node id at the first start; empty means that one is
	// minted. At later starts it must be empty or the same.
	Node partition.NodeID
	// MintOnly makes the identity if there is none, but counts no boot: for
	// commands that need the node id before the node ever ran. A cluster name
	// that is left open is filled in at the first start.
	MintOnly bool
}

// Identity is who this node is, and the exclusive hold on its data directory.
// It is held from OpenIdentity to Close.
type Identity struct {
	Node    partition.NodeID
	Cluster string
	// Boot grows with each start of this node; see bootsBefore for the first. It
	// is on disk before anything else happens, so no two incarnations of a node
	// ever share one.
	Boot uint64

	dir  string
	lock *os.File
}

// OpenIdentity takes the data directory, which it creates if there is none, and
// returns the node's identity with a new boot number. The errors are typed: a
// directory in use by another process or written by another node or cluster is
// CodeRefused, one of a newer program CodeNewerFormat, a damaged one
// CodeCorrupt.
func OpenIdentity(dir string, o IdentityOptions) (*Identity, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory %s: %w", dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	id := &Identity{dir: dir, lock: lock}
	if err := id.load(o); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return id, nil
}

// Dir is the data directory.
func (id *Identity) Dir() string { return id.dir }

// Close gives the data directory free.
func (id *Identity) Close() error { return id.lock.Close() }

// ValidateNodeID reports why an id cannot name a node: it goes into
// certificates, addresses and gossip, so only letters, digits, '-' and '.' are
// allowed.
func ValidateNodeID(n partition.NodeID) error {
	return validateName("node id", string(n), partition.MaxNodeIDBytes)
}

func (o *IdentityOptions) validate() error {
	if o.Node != "" {
		if err := ValidateNodeID(o.Node); err != nil {
			return err
		}
	}
	if o.Cluster == "" && o.MintOnly {
		return nil
	}
	return validateName("cluster name", o.Cluster, MaxClusterNameBytes)
}

func validateName(what, s string, limit int) error {
	if s == "" || len(s) > limit {
		return partition.Errorf(partition.CodeInvalid, "%s %q has %d bytes, allowed are 1 to %d", what, s, len(s), limit)
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '.') {
			return partition.Errorf(partition.CodeInvalid, "%s %q: letters, digits, '-' and '.' are allowed, beginning with a letter or digit", what, s)
		}
	}
	return nil
}

// lockDir takes the lock that ends with the process, and writes down who has it.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("data directory %s is in use by pid %s", dir, strings.TrimSpace(string(holder))),
			Next: "stop that process, or give this node a directory of its own",
		}
	}
	pid := strconv.AppendInt(nil, int64(os.Getpid()), 10)
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(append(pid, '\n'), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

// load reads NODE, or makes it, and counts the boot.
func (id *Identity) load(o IdentityOptions) error {
	path := filepath.Join(id.dir, nodeFile)
	b, err := stamp.Read(path, nodeFormat)
	switch {
	case stamp.IsNotExist(err):
		if id.Node = o.Node; id.Node == "" {
			id.Node = mintNode()
		}
		id.Cluster, id.Boot = o.Cluster, bootsBefore(time.Now())
	case err != nil:
		return err
	default:
		if err := id.decode(path, b); err != nil {
			return err
		}
		if err := id.matches(o); err != nil {
			return err
		}
	}
	if !o.MintOnly {
		id.Boot++
	} else if err == nil {
		return nil // known already; nothing to write
	}
	return stamp.Write(path, nodeFormat, id.encode())
}

// Skip makes the next start count as a later one than any that another process
// of this node may have counted, on a newer state of the directory or on another
// one. Only whoever has made sure that nothing is trusted any more of what the
// directory holds, and of what it may have forgotten, may call it.
func (id *Identity) Skip() error {
	next := *id
	next.Boot = max(id.Boot, bootsAfter(time.Now()))
	return stamp.Write(filepath.Join(id.dir, nodeFile), nodeFormat, next.encode())
}

// matches refuses the directory of another node or cluster.
func (id *Identity) matches(o IdentityOptions) error {
	if o.Node != "" && o.Node != id.Node {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("%s is the data directory of another node: it belongs to %s, asked for is %s", id.dir, id.Node, o.Node),
			Next: "give each node a data directory of its own",
		}
	}
	if id.Cluster == "" {
		id.Cluster = o.Cluster
	}
	if o.Cluster != "" && o.Cluster != id.Cluster {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("%s belongs to the cluster %q, asked for is %q", id.dir, id.Cluster, o.Cluster),
			Next: "start with the right cluster name, or in another data directory",
		}
	}
	return nil
}

// bootsBefore is the boot number below those of an identity that is made now. The
// later an identity is made, the lower its numbers: a node that lost its disk
// and comes back under the same id has a lower boot than the one it was, and
// everybody who knew that one refuses it. It has forgotten what it promised.
//
//	(2^36 - tenths of a second since 1970) * 2^16
//
// stays below 2^53, so that JSON can show it, for two centuries and 65,536
// starts.
func bootsBefore(now time.Time) uint64 {
	return (1<<36 - uint64(now.UnixMilli()/100)) << 16
}

// bootsAfter is above all boots that were counted so far: those of identities
// that were made are below 2^52, and of those that were skipped to the later is
// the higher.
//
//	(2^36 + tenths of a second since 1970) * 2^16
func bootsAfter(now time.Time) uint64 {
	return (1<<36 + uint64(now.UnixMilli()/100)) << 16
}

// mintNode returns an id that no other node has: 50 random bits. Crockford's
// digits without the ones that look alike, in lower case as DNS wants it.
func mintNode() partition.NodeID {
	const digits = "0123456789abcdefghjkmnpqrstvwxyz"
	var b [10]byte
	rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = digits[b[i]&31]
	}
	return partition.NodeID("n-" + string(b[:]))
}

// encode: boot u64 | node len u8, bytes | cluster len u8, bytes.
func (id *Identity) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, id.Boot)
	b = append(append(b, byte(len(id.Node))), id.Node...)
	return append(append(b, byte(len(id.Cluster))), id.Cluster...)
}

func (id *Identity) decode(path string, b []byte) error {
	bad := &partition.Error{
		Code: partition.CodeCorrupt, Why: path + " has an invalid content",
		Next: "restore the file from a backup, or start the node in a new data directory",
	}
	if len(b) < 8 {
		return bad
	}
	id.Boot = binary.LittleEndian.Uint64(b)
	node, rest, ok := cutString(b[8:])
	cluster, rest, ok2 := cutString(rest)
	if !ok || !ok2 || len(rest) != 0 {
		return bad
	}
	id.Node, id.Cluster = partition.NodeID(node), cluster
	o := IdentityOptions{Cluster: cluster, Node: id.Node, MintOnly: cluster == ""}
	if id.Node == "" || o.validate() != nil {
		return bad
	}
	return nil
}

// cutString takes a string with its length in one byte off b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}

package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"pando.dev/pando/partition"
)

// Tags of a member. All of them together must fit 512 bytes.
const (
	tagCluster = "cl"
	tagBoot    = "boot"
	tagLink    = "link"
	tagHTTP    = "http"
	tagZone    = "zone"
	tagVersion = "ver"
	tagExpect  = "ex"
	// TagSeat is "1" on a node with a seat of the control group.
	TagSeat = "ct"
	// TagControlGroup names the control group that a node belongs to. Members
	// of two different ones do not merge.
	TagControlGroup = "cg"
	// TagMode says whether the node is in service; what it means is its host's.
	TagMode = "md"
	// TagSick is why the node should be nobody's master for now, such as
	// "slow-disk"; a hint.
	TagSick = "sk"
)

// GossipConfig is what gossip is started with. The zero value of each optional
// field works.
type GossipConfig struct {
	Node    partition.NodeID // required
	Boot    uint64           // required
	Cluster string           // required
	Zone    string
	// Bind is the host:port to listen on (UDP and TCP), required; port 0 takes a
	// free one. Beyond loopback a Key is required.
	Bind string
	// Advertise is the IP address, or IP:port, that others use to reach Bind, if
	// it is another.
	Advertise string
	LinkAddr  string // of the links, for the others
	HTTPAddr  string // of HTTP, for the others
	Version   string // of the program
	Expect    int    // seats of the control group
	Mode      string // TagMode at the start
	// Key encrypts all gossip: 32 bytes, the same on every node. ReadKey reads it
	// from a file.
	Key []byte
	// Dir is where peers and the library's snapshot are remembered; required.
	Dir string
	// Join names other nodes: "host:port", or "file:/path" with one address a
	// line. One that answers is enough.
	Join []string
	// ProbeInterval is how often a member is probed (default 500 ms). A dead one
	// is found after about six times that, a stall of four times that is
	// tolerated.
	ProbeInterval time.Duration
	// LeaveDelay is how long a node stays up after it said that it leaves, so
	// that it is not taken for failed (default 1 s).
	LeaveDelay time.Duration
	Logger     *slog.Logger // default: discard
}

// NodeStatus is what gossip thinks of a node.
type NodeStatus string

const (
	// Alive: it answers.
	Alive NodeStatus = "alive"
	// Failed: it does not answer; it is not removed for three days.
	Failed NodeStatus = "failed"
	// Left: it said goodbye.
	Left NodeStatus = "left"
)

// Node is a member as gossip shows it: hints, all of it.
type Node struct {
	ID           partition.NodeID
	Boot         uint64
	Status       NodeStatus
	Zone         string
	Gossip       string // address of gossip
	Link         string // address of the links
	HTTP         string
	Version      string
	Expect       int
	Seat         bool
	ControlGroup string
	Mode         string
	Sick         string
}

// GossipStatus tells how joining goes.
type GossipStatus struct {
	Address string // where others reach this node's gossip
	// Joined: another member has been met, or there is nobody to join.
	Joined   bool
	Attempts int
	// Err is why the last attempt failed; nil after one that did not.
	Err error
	// Duplicate, if not nil, says that another process uses this node's id.
	Duplicate error
}

func (c *GossipConfig) validate() error {
	if err := ValidateNodeID(c.Node); err != nil {
		return err
	}
	if err := validateName("cluster name", c.Cluster, MaxClusterNameBytes); err != nil {
		return err
	}
	if c.Boot == 0 || c.Dir == "" || len(c.Zone) > partition.MaxZoneBytes {
		return partition.Errorf(partition.CodeInvalid, "gossip: boot %d, directory %q, zone %.80q (limit %d bytes)", c.Boot, c.Dir, c.Zone, partition.MaxZoneBytes)
	}
	if len(c.Key) != 0 && len(c.Key) != KeyBytes {
		return partition.Errorf(partition.CodeInvalid, "a gossip key of %d bytes, it has %d", len(c.Key), KeyBytes)
	}
	for _, p := range c.Join {
		if _, file := strings.CutPrefix(p, fileProvider); !file {
			if err := checkAddress(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *GossipConfig) tags() map[string]string {
	tags := map[string]string{
		tagCluster: c.Cluster, tagBoot: strconv.FormatUint(c.Boot, 10), tagLink: c.LinkAddr, tagHTTP: c.HTTPAddr,
		tagZone: c.Zone, tagVersion: c.Version, tagExpect: strconv.Itoa(c.Expect),
	}
	if c.Mode != "" {
		tags[TagMode] = c.Mode
	}
	return tags
}

// bindAddress resolves host:port and refuses to be open to others without a key.
func bindAddress(bind string, hasKey bool) (host string, port int, err error) {
	a, err := net.ResolveTCPAddr("tcp", bind)
	if err != nil {
		return "", 0, partition.Errorf(partition.CodeInvalid, "gossip address %q: %v", bind, err)
	}
	ip := a.IP
	if ip == nil {
		ip = net.IPv4zero
	}
	if !ip.IsLoopback() && !hasKey {
		return "", 0, &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("gossip on %s can be reached from outside this machine, and there is no gossip key", bind),
			Next: "give every node the same key file, or bind to 127.0.0.1",
		}
	}
	return ip.String(), a.Port, nil
}

// startError turns the library's text into an error that says what to do.
func startError(bind string, err error) error {
	if strings.Contains(err.Error(), "address already in use") {
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("the gossip address %s is taken by another process", bind),
			Next: "stop that process, or choose another port; port 0 takes a free one",
		}
	}
	return fmt.Errorf("start gossip on %s: %w", bind, err)
}

// joinError makes the reason plain: the library passes texts on.
func joinError(targets []string, err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	switch {
	case strings.Contains(text, "encrypt") || strings.Contains(text, "decrypt") || strings.Contains(text, "installed keys"):
		return &partition.Error{
			Code: partition.CodeUnauthorized, Why: "the others use another gossip key, or only one side has one: " + text,
			Next: "give every node the same key file",
		}
	case strings.Contains(text, io.EOF.Error()) || strings.Contains(text, "reset by peer"):
		return &partition.Error{
			Code: partition.CodeUnauthorized, Why: fmt.Sprintf("%s closed the connection: probably it uses another gossip key or cluster name: %s", strings.Join(targets, ", "), text),
			Next: "compare the key files and cluster names; the other node's log says which it is",
		}
	}
	return &partition.Error{
		Code: partition.CodeUnavailable, Why: fmt.Sprintf("nobody answers at %s: %s", strings.Join(targets, ", "), text),
		Next: "start one of these nodes, or correct the addresses; this node goes on trying",
	}
}

// parseUint reads a number of a tag; what is none is 0.
func parseUint(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

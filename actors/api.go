package actors

import (
	"time"

	"pando.dev/pando/partition"
)

// TableSpec is what a table is created from.
type TableSpec struct {
	Name string `json:"name"`
	// Kind is the partition kind that serves it (default "kv").
	Kind string `json:"kind,omitempty"`
	// Replicas is the replication factor (default 3, or the number of nodes if
	// there are fewer; 2 with the policy all-in-sync; with zones:K at least K).
	Replicas int `json:"replicas,omitempty"`
	// Policy is the durability policy: majority (the default), zones:K or
	// all-in-sync.
	Policy string `json:"policy,omitempty"`
	// SplitPoints divide the table from the start: n points, n+1 partitions.
	SplitPoints [][]byte `json:"split_points,omitempty"`
	// Splits says when its partitions are divided without being asked.
	Splits SplitPolicy `json:"splits,omitzero"`
	// Nodes, if set, is where every replica goes; otherwise they are placed by
	// weighted rendezvous hashing over the zones.
	Nodes []partition.NodeID `json:"nodes,omitempty"`
	// Token makes retries safe: the same request with the same token is carried
	// out once. Empty: one is made.
	Token string `json:"token,omitempty"`
}

// TableChange is what of a table shall become otherwise; empty fields stay.
type TableChange struct {
	Replicas int    `json:"replicas,omitempty"`
	Policy   string `json:"policy,omitempty"`
	// Splits: zero fields stay, too.
	Splits SplitPolicy `json:"splits,omitzero"`
	// Token is as in TableSpec.
	Token string `json:"token,omitempty"`
}

// SplitPolicy says when the partitions of a table are divided without being asked.
// Zero fields mean the default of a new table.
type SplitPolicy struct {
	// Mode is off, size (the default), auto: by size and load, or elastic: as auto,
	// and neighbours that are cold and small are merged.
	Mode string `json:"mode,omitempty"`
	// Load is what a partition may carry, in units per second: a request, and each
	// 4 KiB that it brings or takes, are one (default 5,000).
	Load uint64 `json:"load,omitempty"`
	// Size is what a partition may have on disk (default 1 GiB); the pieces of a
	// larger one have half of it.
	Size int64 `json:"size,omitempty"`
	// Rest is the least time between two splits for load of the same keys (default
	// 10 s).
	Rest time.Duration `json:"rest_ns,omitempty"`
	// Partitions is how many partitions the table is divided into at most (default
	// 1,024).
	Partitions int `json:"partitions,omitempty"`
}

// TableInfo describes a table as the catalog has it: what it shall be. Each
// partition tells what it is.
type TableInfo struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Replicas int    `json:"replicas"`
	Policy   string `json:"policy"`
	// Splits is the policy of splits with all defaults.
	Splits SplitPolicy `json:"splits"`
	// Version is the catalog version in which the table was made or altered last.
	Version    uint64              `json:"version"`
	Partitions []partition.GroupID `json:"partitions"`
}

// PartitionInfo describes a partition: what the catalog says, and what the
// answering nodes' replicas report.
type PartitionInfo struct {
	Group        partition.GroupID           `json:"group"`
	Table        string                      `json:"table"`
	Lo           []byte                      `json:"lo"`
	Hi           []byte                      `json:"hi"`
	RangeVersion partition.RangeVersion      `json:"range_version"`
	Version      partition.MembershipVersion `json:"membership_version"`
	// InFlight: this version is not known to be committed, so the one before it
	// holds as well.
	InFlight bool   `json:"in_flight"`
	Policy   string `json:"policy"`
	Rule     string `json:"rule"` // the policy in words
	// Missing says which zones or nodes have to come back, if the partition takes
	// no writes for want of them.
	Missing string `json:"missing,omitempty"`
	// Solo says who goes on alone while others that are still members were left
	// behind. LeftBehind are the replicas that may lack what was acknowledged then,
	// so they may not be master; also those that are no members any more.
	Solo       string                `json:"solo,omitempty"`
	LeftBehind []partition.ReplicaID `json:"left_behind,omitempty"`
	Master     partition.NodeID      `json:"master"`
	Epoch      string                `json:"epoch"`
	Commit     partition.Index       `json:"commit"`
	// CanLose is how many more of its nodes may fail, in the worst case, while
	// the partition goes on taking writes; -1: it takes none now.
	CanLose int `json:"can_lose"`
	// Asked is how many replicas an operator wants of this one partition; 0: as
	// many as its table says.
	Asked int `json:"asked,omitempty"`
	// Tending is what its master's node does to bring it to what it shall be, or
	// what is in the way; empty if it is what it shall be.
	Tending string `json:"tending,omitempty"`
	// Extent says in words what the partition serves, by its own log, if it was ever
	// split; Splitting what the master does for a split under way, or waits for.
	Extent    string        `json:"extent,omitempty"`
	Splitting string        `json:"splitting,omitempty"`
	Replicas  []ReplicaInfo `json:"replicas"`
}

// ReplicaInfo is one replica of a partition.
type ReplicaInfo struct {
	Replica  partition.ReplicaID `json:"replica"`
	Node     partition.NodeID    `json:"node"`
	Zone     string              `json:"zone"`
	Kind     string              `json:"kind"`
	Eligible bool                `json:"eligible"`
	Role     string              `json:"role"` // master, peer, a phase of an attempt, opening, broken, behind, unreachable, missing
	Applied  partition.Index     `json:"applied"`
	Last     partition.Index     `json:"last"`
	Bytes    int64               `json:"bytes,omitempty"` // of its state on disk
	Why      string              `json:"why,omitempty"`   // why it does not serve, if it does not
}

// MemberInfo is a node as the answering node sees it.
type MemberInfo struct {
	Node   partition.NodeID `json:"node"`
	Boot   uint64           `json:"boot"`
	Zone   string           `json:"zone"`
	Status string           `json:"status"` // alive, unreachable (gossip hears it, the links do not), failed, left
	Mode   string           `json:"mode"`   // empty: in service; drained, stopping
	// Sick is why it should be nobody's master for now, by its own word and that of
	// others; see Node.Anomalies.
	Sick    string `json:"sick,omitempty"`
	Link    string `json:"link"` // address of the links
	HTTP    string `json:"http"`
	Gossip  string `json:"gossip"`
	Version string `json:"version"`
	Seat    bool   `json:"seat"` // holds a seat of the control group
}

// ClusterStatus is the answer to "how are we?".
type ClusterStatus struct {
	Cluster string `json:"cluster"`
	// CanLose is the least CanLose of all partitions and of the control group;
	// -1 when something takes no writes now.
	CanLose int    `json:"can_lose"`
	Why     string `json:"why"` // what limits CanLose
	Nodes   int    `json:"nodes"`
	Alive   int    `json:"alive"`
	// Drained are the nodes that are out of service, or about to stop.
	Drained []partition.NodeID `json:"drained,omitempty"`
	// Anomalies are the nodes and links around the answering one that are found to
	// limp, in a line each.
	Anomalies  []string         `json:"anomalies,omitempty"`
	Partitions int              `json:"partitions"`
	WithMaster int              `json:"with_master"`
	Control    ControlStatus    `json:"control"`
	Self       partition.NodeID `json:"self"`
	Uptime     time.Duration    `json:"uptime_ns"`
}

// ControlStatus describes the control group.
type ControlStatus struct {
	Leader  partition.NodeID   `json:"leader"`
	Seats   []partition.NodeID `json:"seats"`
	Catalog uint64             `json:"catalog_version"`
	State   string             `json:"state"` // ready, no leader, waiting for seats
}

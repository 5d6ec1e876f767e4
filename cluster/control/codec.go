package control

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"pando.dev/pando/internal/mpcheck"
	"pando.dev/pando/partition"
)

// This file holds every body that is replicated, sent or kept in a snapshot.
// All of them are untrusted when they are read: two bytes of version and kind,
// then one msgpack array whose structure is checked before it is decoded into a
// struct of fixed fields. What the fields mean is checked by their users.
//
// Kinds and the meaning of fields are append-only. A body with other fields gets
// a new kind; a change that older programs must not overlook a new version.

// codecVersion is the version that this program writes and the newest it reads.
const codecVersion = 1

// kind says what a body is.
type kind uint8

const (
	// Commands of the replicated log. Those without a start are of programs
	// before there was one; codec_old.go reads them.
	kindLocksNoStart    kind = 1
	kindSessionsNoStart kind = 2
	kindCreate          kind = 3
	kindDrop            kind = 4
	kindUpdate          kind = 5
	kindPermit          kind = 6
	kindAlter           kind = 7
	kindLocks           kind = 8
	kindSessions        kind = 9
	kindSplit           kind = 10
	kindActivate        kind = 11
	kindReport          kind = 12
	kindCancel          kind = 13
	kindPlan            kind = 14
	kindStart           kind = 15
	kindSplits          kind = 18
	kindMerge           kind = 19

	// The outer form of what Transport.Call carries.
	kindRequest kind = 16
	kindAnswer  kind = 17

	// Bodies of requests and their answers.
	// 33 and 34 asked for renewals and locks without a start, 50 answered without
	// a permit.
	kindAskSeat      kind = 32
	kindAskCreate    kind = 35
	kindAskDrop      kind = 36
	kindAskUpdate    kind = 37
	kindAskCatalog   kind = 38
	kindAskPermit    kind = 39
	kindAskPermits   kind = 40
	kindAskAlter     kind = 41
	kindAskRenew     kind = 42
	kindAskLocks     kind = 43
	kindAskRelay     kind = 44
	kindAskSplit     kind = 45
	kindAskActivate  kind = 46
	kindAskReport    kind = 47
	kindAskCancel    kind = 55
	kindAskPlan      kind = 56
	kindAskStart     kind = 57
	kindAskSplits    kind = 58
	kindAskMerge     kind = 59
	kindSeatAnswer   kind = 48
	kindRenewAnswer  kind = 49
	kindLockAnswer   kind = 54
	kindTableAnswer  kind = 51
	kindEmptyAnswer  kind = 52
	kindPermitAnswer kind = 53

	// Parts of a snapshot; kindPage is also the answer to kindAskCatalog.
	kindPage       kind = 64
	kindHead       kind = 65
	kindLockPage   kind = 66
	kindTail       kind = 67
	kindPermitPage kind = 68
	kindStartPage  kind = 69
	// A page with tasks, or groups that were split from others.
	kindTaskPage kind = 70
	kindTaskHead kind = 71
	// A page with split policies besides.
	kindSplitsPage kind = 72

	// What a node remembers of seats.
	kindSeatState kind = 80
)

// encode puts a body into its form.
func encode(k kind, body any) []byte {
	var b bytes.Buffer
	b.Write([]byte{codecVersion, byte(k)})
	enc := msgpack.NewEncoder(&b)
	enc.UseArrayEncodedStructs(true)
	enc.UseCompactInts(true)
	if err := enc.Encode(body); err != nil {
		panic(fmt.Sprintf("encode body of kind %d: %v", k, err)) // all bodies are structs of ours
	}
	return b.Bytes()
}

// kindOf returns what b claims to be.
func kindOf(b []byte) (kind, error) {
	switch {
	case len(b) < 3:
		return 0, partition.Errorf(partition.CodeCorrupt, "a control body of %d bytes", len(b))
	case b[0] > codecVersion:
		return 0, partition.Errorf(partition.CodeNewerFormat, "a control body of version %d, this program knows %d", b[0], codecVersion)
	case b[0] == 0:
		return 0, partition.Errorf(partition.CodeCorrupt, "a control body of version 0")
	}
	return kind(b[1]), nil
}

// decode reads a body of the given kind from untrusted bytes.
func decode[T any](k kind, b []byte) (*T, error) {
	got, err := kindOf(b)
	if err != nil {
		return nil, err
	}
	if got != k {
		return nil, partition.Errorf(partition.CodeCorrupt, "a control body of kind %d, expected %d", got, k)
	}
	if err := mpcheck.Check(b[2:]); err != nil {
		return nil, fmt.Errorf("control body of kind %d: %w", k, err)
	}
	v := new(T)
	if err := msgpack.Unmarshal(b[2:], v); err != nil {
		return nil, partition.Errorf(partition.CodeCorrupt, "control body of kind %d: %v", k, err)
	}
	return v, nil
}

type locksBody struct {
	Node    partition.NodeID // set by whoever received it, from the link
	Boot    uint64
	Start   uint64
	Acquire []acquireItem
	Release []releaseItem
}

type acquireItem struct {
	Group    partition.GroupID
	Replica  partition.ReplicaID
	Above    uint64
	Failover bool
	Holder   partition.ReplicaID // consents, if it holds the lock by the number Consent
	Consent  uint64
}

type releaseItem struct {
	Group   partition.GroupID
	Replica partition.ReplicaID
	Number  uint64
}

type grantItem struct {
	Number uint64
	Holder holderItem
	Permit uint64 // the in-sync number that the replica holds
	Error  *errorItem
}

type holderItem struct {
	Node    partition.NodeID
	Replica partition.ReplicaID
	Number  uint64
}

type errorItem struct {
	Code partition.Code
	Why  string
	Next string
}

type sessionsBody struct {
	Open   []sessionItem
	Expire []sessionItem
}

// sessionItem is a session that begins or ends.
type sessionItem struct {
	Node  partition.NodeID
	Boot  uint64
	Start uint64 // 0 where it ends
}

// What is asked about a group's in-sync number.
const (
	actPermit  = 1
	actRelease = 2
	actDecree  = 3
	actExtend  = 4
	actPass    = 5
)

// permitBody is both the request and the command.
type permitBody struct {
	Node    partition.NodeID // who asks; set by whoever received it, from the link
	Act     uint8
	Group   partition.GroupID
	From    uint64
	Holder  partition.NodeID
	Replica partition.ReplicaID
	Lock    uint64
	Seq     uint64
	Able    []partition.ReplicaID
	Next    partition.ReplicaID
	Why     string
}

// permitItem is what is kept of a group's in-sync number, also in snapshots.
type permitItem struct {
	Group   partition.GroupID
	Number  uint64
	Holder  partition.NodeID // empty: nobody
	Replica partition.ReplicaID
	Able    []partition.ReplicaID
	Next    partition.ReplicaID
	Decreed bool
	Why     string
	Lock    uint64
	Seq     uint64
}

type askPermits struct {
	Groups []partition.GroupID
}

// permitAnswer has one item per group asked for, and the holders of their locks.
type permitAnswer struct {
	Permits []permitItem
	Locks   []holderItem
}

// alterBody changes what a table shall be.
type alterBody struct {
	Token    string
	Name     string
	Replicas int            // 0: as it is
	Rule     partition.Rule // 0: as it is
	Zones    uint8
	// Nodes are those that seem alive, in a request; empty in the command.
	Nodes []placeItem
}

// tableBody is the part of a new table that the client decides.
type tableBody struct {
	Token    string
	Name     string
	Kind     string
	Replicas int
	Rule     partition.Rule
	Zones    uint8
	Splits   [][]byte
}

type placeItem struct {
	Node   partition.NodeID
	Zone   string
	Weight uint32
}

// askCreate asks the leader for a table on some of the nodes.
type askCreate struct {
	Table tableBody
	Nodes []placeItem
}

// createBody is the leader's command: the groups get the ids from First on,
// provided that First is still the next id, and go where Assign says: for each
// group one index into Nodes per replica, two bytes each.
type createBody struct {
	Table  tableBody
	Nodes  []placeItem
	First  partition.GroupID
	Assign []byte
}

type dropBody struct {
	Token string
	Name  string
}

type updateBody struct {
	Updates []groupItem
}

// groupItem is a group in updates, pages and snapshots. Updates leave Table and
// Changed empty.
type groupItem struct {
	ID           partition.GroupID
	Table        uint64
	Lo, Hi       []byte
	RangeVersion partition.RangeVersion
	Membership   []byte
	Master       partition.NodeID
	Epoch        partition.Epoch
	Changed      uint64
}

type tableItem struct {
	ID       uint64
	Name     string
	Kind     string
	Replicas int
	Rule     partition.Rule
	Zones    uint8
	Changed  uint64
}

type dropItem struct {
	Version uint64
	Table   uint64
}

// cursor is a place in the order of a catalog's changes: by version, then
// drops, tables, groups, then id.
type cursor struct {
	Version uint64
	Class   uint8
	ID      uint64
}

// pageBody is a part of a catalog: changes in order.
type pageBody struct {
	Version uint64 // of the catalog that the page was cut from
	Floor   uint64
	Whole   bool // the pages from the first on are the whole catalog
	Drops   []dropItem
	Tables  []tableItem
	Groups  []groupItem
	Next    cursor // where the next page begins, if More
	More    bool

	Origins []originItem `msgpack:"-"`
	Tasks   []taskItem   `msgpack:"-"`
	Splits  []splitsItem `msgpack:"-"`
}

type askCatalog struct {
	After  cursor
	Whole  bool
	WaitMs uint32 // how long to wait for a change, if there is none
}

type requestBody struct {
	Group     uint64 // the control group that the sender means; 0: any
	TimeoutMs uint32
	Body      []byte
}

// relayBody asks a seat to bring a request to the leader, which does not answer
// the sender. Between seats From names who asks.
type relayBody struct {
	From partition.NodeID
	Body []byte
}

type answerBody struct {
	Error   *errorItem
	Group   uint64
	Leader  partition.NodeID // as far as known
	Catalog uint64           // version
	Body    []byte
}

type askRenew struct {
	Boot  uint64
	Start uint64
}

type renewAnswer struct {
	Seats []partition.NodeID
}

type lockAnswer struct {
	Grants []grantItem
}

type tableAnswer struct {
	Table   uint64
	Version uint64 // of the catalog that shows the change
}

type emptyAnswer struct {
	Version uint64
}

// proposal is a set of seats that somebody proposed.
type proposal struct {
	ID    uint64 // random; names the control group if it is founded
	Seats []partition.NodeID
}

type askSeat struct {
	Proposal proposal
	Kill     bool
}

type seatAnswer struct {
	Stand stand
	// With standMember: the control group that exists already.
	Founded proposal
}

// seatState is what a node has on disk about seats.
type seatState struct {
	Phase    phase
	Proposal proposal // bound, founded, or known
	Rejected []uint64 // proposals that this node will never accept
}

// headBody begins a snapshot.
type headBody struct {
	NextGroup partition.GroupID
	NextTable uint64
	Sessions  []heldSession
	Tokens    []tokenItem
	Drops     []dropItem
	Floor     uint64
}

type heldSession struct {
	Node    partition.NodeID
	Boot    uint64
	Expired bool
}

type tokenItem struct {
	Token  string
	Digest uint32
	Result tableAnswer
}

type lockItem struct {
	Group  partition.GroupID
	Last   uint64
	Boot   uint64
	Holder holderItem
}

type lockPage struct {
	Locks []lockItem
}

// permitPage has some of the Of in-sync numbers of a snapshot.
type permitPage struct {
	Of      int
	Permits []permitItem
}

// startPage has some of the Of starts of a snapshot's sessions.
type startPage struct {
	Of     int
	Starts []startItem
}

type startItem struct {
	Node  partition.NodeID
	Start uint64
}

// tailBody ends a snapshot, so that a part of one is not taken for a whole.
type tailBody struct {
	Locks  int
	Tables int
	Groups int
}

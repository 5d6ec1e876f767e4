package partition

import "iter"

// Partition is the contract of a partition kind: a deterministic state machine
// over a key space that Pando replicates, copies and divides.
//
// The state lives in the key space handed to each call and nowhere else, so a
// kind gets durability, copy and split without a line of its own. All calls
// for one replica come from that replica's actor, one at a time, except Read,
// which may run on any number of goroutines at once and beside Apply.
type Partition interface {
	// Apply executes one committed command and returns its result. It must be
	// deterministic: the same state and command give the same writes and the
	// same result on every replica, so no clock, no randomness and no map
	// order. A refusal ("no such account") is a result. An error means that
	// the state cannot be read or written; the replica is then rebuilt from
	// its log. All writes of one call become visible and durable together.
	Apply(w Writer, c Command) (result []byte, err error)

	// Read answers a query from one consistent state. A refusal is an answer;
	// an error of type *Error reaches the caller as it is.
	Read(r Reader, query []byte) (answer []byte, err error)
}

// Splitter is what a Partition implements besides, if its groups may be split
// while they serve. Without it they may not: what a command touches has to be known
// before it is executed, since one that is no longer for this group is refused.
type Splitter interface {
	// Span returns a range that holds every key which the command reads or writes,
	// and of which it depends on. It goes by the payload alone. An error means
	// that the command touches nothing: Apply refuses it.
	Span(payload []byte) (KeyRange, error)
}

// Factory makes the Partition of one replica. It must not keep state between
// calls: the same spec gives an equal Partition on every node.
type Factory func(Spec) (Partition, error)

// Spec says what a Partition is made for.
type Spec struct {
	Table string
	Group GroupID
}

// Command is one committed client command. Payload is only valid during the
// call.
type Command struct {
	Index   Index // of the record that carries it; strictly increasing
	Payload []byte
}

// Reader is one consistent state of a partition's key space, in byte order.
type Reader interface {
	// Get returns the value of key and whether it exists. The value is only
	// valid until the next call on the Reader.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan yields the pairs of the range in order. Key and value are only valid
	// until the next step. The error, if any, comes with the last step.
	Scan(KeyRange) iter.Seq2[Pair, error]
	// ScanBack is Scan in descending order.
	ScanBack(KeyRange) iter.Seq2[Pair, error]
}

// Writer is the state during one Apply: reads see all earlier commands and the
// writes that this command has made so far.
type Writer interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(KeyRange) error
}

// Pair is a key and its value.
type Pair struct {
	Key, Value []byte
}

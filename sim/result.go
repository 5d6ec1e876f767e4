package sim

import (
	"io"
	"reflect"
	"strings"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// Options are what a run may do besides running.
type Options struct {
	// Trace gets one line per event. It changes nothing about the run.
	Trace io.Writer
	// Stop, if set, ends the run when it is closed.
	Stop <-chan struct{}
}

// Result is what a run shows.
type Result struct {
	Violation *Violation // nil: passed
	// Stopped: it was ended before it was through, and says nothing.
	Stopped bool
	// Simulated is how much virtual time went by, recovery included.
	Simulated partition.Time
	// Events is how many events the engine took, Steps how many inputs replicas
	// took.
	Events, Steps uint64
	// TraceHash is a hash over every event: two runs with the same hash are the
	// same run.
	TraceHash uint64
	Marks     Marks
	// Fired are the faults that followed points, in order, as a plan names them.
	Fired  []PointFault
	Counts Counts
}

// Violation is what a checker objected to.
type Violation struct {
	What string // the checker
	Why  string
	At   partition.Time
}

// String is the violation in a line.
func (v *Violation) String() string { return v.At.String() + " " + v.What + ": " + v.Why }

// Marks are how often each point of the code, and each rare state that somebody
// gave a name, was reached. Names are as in "replica.promised", "wal.rotated",
// "sim.fresh_replica_installed".
type Marks map[string]uint64

// Add adds what another run reached.
func (m Marks) Add(o Marks) {
	for name, n := range o {
		m[name] += n
	}
}

// Counts are how much happened in a run.
type Counts struct {
	Acked, Unknown, Refused  uint64 // operations by outcome
	LeaseReads, QuorumReads  uint64
	Elections, Transfers     uint64 // masterships, and those that were handed over
	Crashes, Restarts        uint64
	Installs, Retired, Snips uint64
	Changes                  uint64 // configurations committed
	Sent, Lost               uint64 // messages
	Faults                   [fault.Classes]uint64
}

// Add adds the counts of another run.
func (c *Counts) Add(o *Counts) {
	mine, theirs := reflect.ValueOf(c).Elem(), reflect.ValueOf(o).Elem()
	for i := range mine.NumField() {
		if f := mine.Field(i); f.Kind() == reflect.Uint64 {
			f.SetUint(f.Uint() + theirs.Field(i).Uint())
		}
	}
	for i, n := range o.Faults {
		c.Faults[i] += n
	}
}

// Injected is the number of all faults.
func (c *Counts) Injected() (n uint64) {
	for _, x := range c.Faults {
		n += x
	}
	return n
}

// Named are the counts by name, those of faults left out.
func (c *Counts) Named() map[string]uint64 {
	m := map[string]uint64{}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 {
			m[strings.ReplaceAll(knobName(v.Type().Field(i).Name), "-", "_")] = v.Field(i).Uint()
		}
	}
	return m
}

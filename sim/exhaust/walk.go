package exhaust

import (
	"context"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// walk is one walk: the tables in which states are numbered, and where it stands.
type walk struct {
	cfg       Config
	nodes     *nodes
	letters   *letters
	histories *histories
	ledgers   map[uint32]*ledger
	session   partition.SessionID // of the client, if it has one
	healing   bool
	ordered   bool // the order of sending matters
	first     world

	seen   set
	paths  []step   // of every state, in the order they were found
	level  frontier // whose worlds are to be continued
	next   frontier
	report Report
}

// step is how a state was come upon first.
type step struct {
	from   uint32
	action action
}

// frontier is the worlds of one depth, encoded one behind the other.
type frontier struct {
	bytes []byte
	ends  []int
	first uint32 // number of the first of them
}

func (f *frontier) add(x *world, n int, lags bool) {
	f.bytes = x.appendTo(f.bytes, n, lags)
	f.ends = append(f.ends, len(f.bytes))
}

func (f *frontier) at(i int) []byte {
	from := 0
	if i > 0 {
		from = f.ends[i-1]
	}
	return f.bytes[from:f.ends[i]]
}

// Walk visits every state that a configuration can come to within its budgets,
// those that take the fewest actions first, and ends at the first violation. The
// error says that the Config makes no sense or that ctx is done.
func Walk(ctx context.Context, c Config) (Report, error) {
	w, why, err := begin(c)
	if err != nil {
		return Report{}, err
	}
	began := time.Now()
	defer func() { w.report.Elapsed = time.Since(began) }()
	if why != "" {
		w.report.Violation = w.violation(why, nil, nil)
	} else {
		err = w.breadth(ctx, began)
	}
	w.sum(began)
	return w.report, err
}

// begin makes the first world. It returns a violation, if one is found on the way
// there.
func begin(c Config) (*walk, string, error) {
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, "", err
	}
	w := &walk{cfg: c, ordered: c.InOrder || c.Window > 0, ledgers: map[uint32]*ledger{}}
	w.letters = &letters{byKey: map[string]uint32{}}
	w.histories = &histories{byKey: map[string]uint32{}}
	w.nodes = &nodes{
		cfg: machineConfig(&c), slow: c.SlowApply, disk: c.QuickDisk, lock: c.QuickLock, command: w.command, letters: w.letters,
		byPrint: map[print]uint32{}, known: map[question]*effect{}, marks: make([]uint64, len(replica.Points())),
	}
	w.nodes.change = func(l *local, how int) replica.Input {
		return replica.Configure{ID: otherID, Membership: w.changed(l, how), Force: true}
	}
	return w, w.set(), nil
}

func (c *Config) validate() error {
	bad := func(format string, args ...any) error {
		return partition.Errorf(partition.CodeInvalid, "exhaustive walk: "+format, args...)
	}
	if c.Replicas < 1 || c.Replicas > maxReplicas {
		return bad("%d replicas, allowed are 1 to %d", c.Replicas, maxReplicas)
	}
	if c.Records > 8 || c.Reads > 4 || c.Reads < 0 {
		return bad("%d records and %d reads, allowed are 8 and 4", c.Records, c.Reads)
	}
	for _, n := range c.budget() {
		if n < 0 || n > 255 {
			return bad("a budget of %d, allowed are 0 to 255", n)
		}
	}
	switch {
	case c.Grants > 0 && !c.Leases:
		return bad("grants without leases")
	case (c.Start == Parted || c.Start == Overtaken) && c.Replicas != 3:
		return bad("this start is one of 3 replicas")
	case c.Start > Overtaken:
		return bad("no start %d", c.Start)
	case c.Retries > 0 && c.Start != Led && c.Start != Deserted:
		return bad("a client with a session needs a start that is led")
	}
	return nil
}

func (c *Config) budget() [budgets]int {
	return [budgets]int{
		crashes: c.Crashes, downs: c.Downs, alarms: c.Alarms, losses: c.Losses, repeats: c.Repeats, refusals: c.Refusals, oldLocks: c.OldLocks,
		retries: c.Retries, transfers: c.Transfers, resigns: c.Resigns, configures: c.Changes, grants: c.Grants,
	}
}

// breadth walks on from the first world, one depth after the other.
func (w *walk) breadth(ctx context.Context, began time.Time) error {
	w.find(&w.first, 0, 0)
	var x, y world
	var todo []action
	n, lags := w.cfg.Replicas, w.cfg.Leases
	for len(w.next.ends) > 0 {
		w.level, w.next = w.next, frontier{bytes: w.level.bytes[:0], ends: w.level.ends[:0], first: uint32(len(w.paths))}
		for i := range w.level.ends {
			if i%1024 == 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
				if w.cfg.MaxTime > 0 && time.Since(began) > w.cfg.MaxTime {
					return nil
				}
			}
			x.parse(w.level.at(i), n, lags)
			from := w.level.first + uint32(i)
			todo = w.options(todo[:0], &x)
			for _, a := range todo {
				w.report.Transitions++
				y.copyFrom(&x)
				if why := w.advance(&y, a); why != "" {
					w.report.Violation = w.violation(why, append(w.path(from), a), nil)
					return nil
				}
				if a.kind() == deliver && w.idle(&x, &y) {
					continue
				}
				w.find(&y, from, a)
			}
			if w.due(from) && w.heals(&x, from) {
				return nil
			}
			if w.cfg.MaxStates > 0 && len(w.paths) >= w.cfg.MaxStates {
				return nil
			}
		}
		if len(w.next.ends) > 0 {
			w.report.Depth++
		}
	}
	w.report.Complete = true
	return nil
}

// idle reports whether a message was delivered to no effect. The world without it can
// come to nothing that the one with it cannot: any message may stay under way.
func (w *walk) idle(x, y *world) bool {
	return !w.ordered && x.nodes == y.nodes && x.lag == y.lag && x.history == y.history && len(y.mail) < len(x.mail)
}

// find notes a world, if it is new.
func (w *walk) find(x *world, from uint32, a action) {
	n, lags := w.cfg.Replicas, w.cfg.Leases
	at := len(w.next.bytes)
	w.next.add(x, n, lags)
	if !w.seen.add(hash(w.next.bytes[at:])) {
		w.next.bytes = w.next.bytes[:at]
		w.next.ends = w.next.ends[:len(w.next.ends)-1]
		return
	}
	w.paths = append(w.paths, step{from: from, action: a})
}

// path lists the actions to a state.
func (w *walk) path(n uint32) []action {
	var list []action
	for n != 0 {
		list = append(list, w.paths[n].action)
		n = w.paths[n].from
	}
	slices.Reverse(list)
	return list
}

// violation puts what does not hold, and the way to it, into words. The second part of
// the way is one without faults.
func (w *walk) violation(why string, path, healing []action) *Violation {
	if len(healing) > toldHealing {
		healing = healing[:toldHealing] // it goes on like that
	}
	v := &Violation{Healing: len(healing)}
	v.What, v.Why, _ = strings.Cut(why, ": ")
	for _, list := range [][]action{path, healing} {
		for _, a := range list {
			v.Path = append(v.Path, w.tell(a))
		}
	}
	return v
}

func (w *walk) sum(began time.Time) {
	r := &w.report
	r.States, r.Elapsed = uint64(len(w.paths)), time.Since(began)
	r.Nodes, r.Messages, r.Steps = len(w.nodes.list), len(w.letters.list), w.nodes.steps
	for i, p := range replica.Points() {
		if n := w.nodes.marks[i]; n > 0 {
			r.Marks = append(r.Marks, Mark{Name: p.String(), Count: n})
		}
	}
}

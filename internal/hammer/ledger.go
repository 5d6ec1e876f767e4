package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"pando.dev/pando/partition"
)

// ledger is what the log files of all nodes say about one group, read from
// outside while the nodes run or lie dead: a second opinion on what the group has
// agreed on. It belongs to the scenario's goroutine.
//
// Every record names the checksum of the one before. So from the newest record
// of the newest epoch, which is in the log of the master, the way back is the
// group's one log; what is not on it was snipped. Each look must find the way
// back to where the look before ended: if it arrives at another record there, a
// committed record was replaced.
type ledger struct {
	group partition.GroupID
	seen  map[place]entry // that the way may lead over

	end     entry // where the way began at the last look; zero before the first
	configs []config
	epochs  map[partition.Epoch]bool // of the masters' first records on the way
	looks   int
	broken  int // looks whose way did not lead back: the records were gone already
	snipped int // configuration records beside the way
	counted map[place]bool
}

// place names a record well enough: two at one index share a checksum once in
// four billion times.
type place struct {
	partition.Index
	sum uint32
}

// entry is one record, its payload only if it is a configuration.
type entry struct {
	partition.Position
	sum, prev uint32
	kind      partition.Kind
	payload   []byte
}

func (e entry) place() place { return place{e.Index, e.sum} }

// before is where the record before it is.
func (e entry) before() place { return place{e.Index - 1, e.prev} }

// config is one configuration of the group.
type config struct {
	partition.Membership
	at partition.Position
}

func newLedger(g partition.GroupID) *ledger {
	return &ledger{group: g, seen: map[place]entry{}, epochs: map[partition.Epoch]bool{}, counted: map[place]bool{}}
}

// lookAt reads the logs in the data directories, and follows each group's log from
// its end back to the look before. Its master says up to where it is committed.
func lookAt(dirs []string, commits map[*ledger]partition.Index) error {
	for range 2 { // what is written meanwhile may be read in the wrong order
		for _, dir := range dirs {
			if err := readLog(filepath.Join(dir, "wal"), commits); err != nil {
				return err
			}
		}
		if allJoined(commits) {
			break
		}
	}
	var errs []error
	for l, commit := range commits { // each on its own
		l.looks++
		errs = append(errs, l.follow(l.wayFrom(l.newest()), commit))
	}
	return errors.Join(errs...)
}

func allJoined(commits map[*ledger]partition.Index) bool {
	for l := range commits { // all must
		way := l.wayFrom(l.newest())
		if len(way) == 0 || l.end.Index > 0 && way[len(way)-1].Index > l.end.Index+1 {
			return false
		}
	}
	return true
}

// readLog adds every record of the groups that lies in a directory of segments.
// They may be written meanwhile, and one that is used again may be gone.
func readLog(dir string, groups map[*ledger]partition.Index) error {
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return err
	}
	for _, path := range segments {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the log from outside: %w", err)
		}
		for l := range groups { // each on its own
			l.add(b)
		}
	}
	return nil
}

// add takes all records of the group out of raw bytes. A record is where the
// group's number is and the checksum holds.
func (l *ledger) add(b []byte) {
	const before = 8 // bytes of a record before the number of its group
	number := binary.LittleEndian.AppendUint64(nil, uint64(l.group))
	for at := before; at <= len(b); {
		i := bytes.Index(b[at:], number)
		if i < 0 {
			return
		}
		at += i
		r, _, err := partition.ParseRecord(b[at-before:])
		if err != nil || r.Kind() == 0 || r.Kind() >= partition.KindLocal || r.Index() == 0 {
			at++
			continue
		}
		e := entry{Position: r.Position(), sum: r.Checksum(), prev: r.Prev(), kind: r.Kind()}
		if r.Kind() == partition.KindMember || r.Kind() == partition.KindMode {
			e.payload = bytes.Clone(r.Payload())
		}
		if e.Index >= l.end.Index {
			l.seen[e.place()] = e
		}
		at += len(r) // it begins eight bytes before, so one that follows is not jumped over
	}
}

// newest is the record with the greatest position.
func (l *ledger) newest() entry {
	var newest entry
	for _, e := range l.seen { // the greatest of all: the order does not matter
		if e.Position.Compare(newest.Position) > 0 {
			newest = e
		}
	}
	return newest
}

// wayFrom lists the records from one back to the last look's end, as far as they
// are known.
func (l *ledger) wayFrom(e entry) []entry {
	var way []entry
	for ok := e.Index != 0; ok; e, ok = l.seen[e.before()] {
		way = append(way, e)
		if e.Index <= l.end.Index {
			break
		}
	}
	return way
}

// follow takes up what is new and committed on the way, which is in reverse order.
func (l *ledger) follow(way []entry, commit partition.Index) error {
	if len(way) == 0 {
		return fmt.Errorf("no log has a record of %s", l.group)
	}
	if err := l.joined(way[len(way)-1]); err != nil {
		return err
	}
	slices.Reverse(way)
	on := map[place]bool{}
	for _, e := range way {
		on[e.place()] = true
		if e.Index > commit || e.Index <= l.end.Index {
			continue
		}
		l.epochs[e.Epoch] = true
		if err := l.addConfig(e); err != nil {
			return err
		}
	}
	l.forget(way, on, commit)
	return nil
}

// joined judges how a way ends.
func (l *ledger) joined(last entry) error {
	switch {
	case l.end.Index == 0: // the first look
	case last.Index > l.end.Index+1:
		l.broken++
	case last.Index == l.end.Index+1 && last.prev == l.end.sum:
	case last.place() == l.end.place():
	default:
		return fmt.Errorf("the log of %s forked: it had %s, known to be committed, and now leads back to %s", l.group, l.end.Position, last.Position)
	}
	return nil
}

// addConfig judges one configuration on the way against the one before it.
func (l *ledger) addConfig(e entry) error {
	if e.payload == nil {
		return nil
	}
	c := config{at: e.Position}
	if err := c.UnmarshalBinary(e.payload); err != nil {
		return fmt.Errorf("the configuration at %s of %s: %w", e.Position, l.group, err)
	}
	if n := len(l.configs); n > 0 {
		before := l.configs[n-1]
		if c.Version != before.Version+1 && (l.broken == 0 || c.Version <= before.Version) {
			return fmt.Errorf("in the log of %s version %d at %s follows version %d at %s", l.group, c.Version, e.Position, before.Version, before.at)
		}
		if c.Next < before.Next {
			return fmt.Errorf("in the log of %s the next replica id falls from %d to %d at %s", l.group, before.Next, c.Next, e.Position)
		}
		for _, m := range c.Members {
			if _, had := before.Member(m.Replica); !had && m.Replica < before.Next && c.Version == before.Version+1 {
				return fmt.Errorf("in the log of %s replica id %d is used again at %s", l.group, m.Replica, e.Position)
			}
		}
	}
	l.configs = append(l.configs, c)
	return nil
}

// forget drops what no later look needs, and counts what was snipped.
func (l *ledger) forget(way []entry, on map[place]bool, commit partition.Index) {
	for _, e := range way { // in order
		if e.Index <= commit {
			l.end = e
		}
	}
	for p, e := range l.seen { // each on its own
		if e.Index > l.end.Index {
			continue
		}
		if !on[p] && e.payload != nil && !l.counted[p] {
			l.counted[p] = true
			l.snipped++
		}
		if p != l.end.place() {
			delete(l.seen, p)
		}
	}
}

// String sums the ledger up.
func (l *ledger) String() string {
	if len(l.configs) == 0 {
		return fmt.Sprintf("%s: no configuration in any log", l.group)
	}
	first, last := l.configs[0], l.configs[len(l.configs)-1]
	return fmt.Sprintf("%s: versions %d to %d, %d of them read, in %d masterships, %d looks at the logs, %d of them without a way back to the one before; %d configurations snipped",
		l.group, first.Version, last.Version, len(l.configs), len(l.epochs), l.looks, l.broken, l.snipped)
}

// changes counts the masterships that began since there were so many.
func (l *ledger) changes(since int) int { return len(l.epochs) - since }

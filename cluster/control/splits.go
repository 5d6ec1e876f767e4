package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"pando.dev/pando/partition"
)

// Limits and defaults of split policies.
const (
	// DefaultSplitLoad is what a partition may carry, in units per second. What a
	// machine can serve is not known here: alter it.
	DefaultSplitLoad = 5000
	// DefaultSplitSize is what a partition may have on disk; the pieces of a larger
	// one have half of it.
	DefaultSplitSize = 1 << 30
	// DefaultSplitRest is the least time between two splits for load of the same keys.
	DefaultSplitRest = 10 * time.Second
	// DefaultSplitPartitions is how many partitions a table is divided into at most.
	DefaultSplitPartitions = 1024

	minSplitSize, maxSplitSize = 64 << 10, 1 << 50
	maxSplitLoad               = 1 << 40
	minSplitRest, maxSplitRest = time.Second, 24 * time.Hour
)

// SplitMode says what divides the partitions of a table without being asked.
// Values are append-only.
type SplitMode uint8

// The modes. The zero mode is that of tables for which nobody has said anything.
const (
	SplitsDefault SplitMode = 0 // as SplitsBySize
	SplitsOff     SplitMode = 1 // nothing
	SplitsBySize  SplitMode = 2 // their size
	SplitsAuto    SplitMode = 3 // their size and their load
	SplitsElastic SplitMode = 4 // as SplitsAuto, and cold neighbours are merged
)

// String returns the name used in commands and answers.
func (m SplitMode) String() string {
	switch m {
	case SplitsDefault, SplitsBySize:
		return "size"
	case SplitsOff:
		return "off"
	case SplitsAuto:
		return "auto"
	case SplitsElastic:
		return "elastic"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// ParseSplitMode reads what String wrote.
func ParseSplitMode(s string) (SplitMode, error) {
	for _, m := range []SplitMode{SplitsOff, SplitsBySize, SplitsAuto, SplitsElastic} {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, &partition.Error{
		Code: partition.CodeInvalid, Why: fmt.Sprintf("%.40q is no way to split", s), Next: "off, size (by size only), auto (by size and load) or elastic (and cold neighbours are merged)",
	}
}

// SplitPolicy says when the partitions of a table are divided without being
// asked. A zero field stands for the default, and in a change for what is so.
type SplitPolicy struct {
	Mode SplitMode
	// Load is what a partition may carry, in units per second: a request, and each
	// 4 KiB that it brings or takes, are one.
	Load uint64
	// Size is what a partition may have on disk.
	Size int64
	// Rest is the least time between two splits for load of the same keys.
	Rest time.Duration
	// Partitions is how many the table is divided into at most.
	Partitions int
}

// WithDefaults returns the policy without zero fields.
func (p SplitPolicy) WithDefaults() SplitPolicy {
	return SplitPolicy{SplitsBySize, DefaultSplitLoad, DefaultSplitSize, DefaultSplitRest, DefaultSplitPartitions}.altered(p)
}

// altered is the policy after a change.
func (p SplitPolicy) altered(by SplitPolicy) SplitPolicy {
	if by.Mode != SplitsDefault {
		p.Mode = by.Mode
	}
	if by.Load != 0 {
		p.Load = by.Load
	}
	if by.Size != 0 {
		p.Size = by.Size
	}
	if by.Rest != 0 {
		p.Rest = by.Rest
	}
	if by.Partitions != 0 {
		p.Partitions = by.Partitions
	}
	return p
}

// Validate refuses what makes no sense.
func (p SplitPolicy) Validate() error {
	if err := p.validate(); err != nil {
		return err
	}
	return nil
}

func (p SplitPolicy) validate() *partition.Error {
	within := func(what string, x, low, high int64) *partition.Error {
		if x == 0 || x >= low && x <= high {
			return nil
		}
		return partition.Errorf(partition.CodeInvalid, "%s of %d for splits, allowed are %d to %d", what, x, low, high)
	}
	if p.Mode > SplitsElastic {
		return partition.Errorf(partition.CodeInvalid, "a split mode of %d", p.Mode)
	}
	for _, err := range []*partition.Error{
		within("a load", int64(min(p.Load, 1<<62)), 1, maxSplitLoad), within("a size", p.Size, minSplitSize, maxSplitSize),
		within("a rest (ms)", p.Rest.Milliseconds(), minSplitRest.Milliseconds(), maxSplitRest.Milliseconds()),
		within("a number of partitions", int64(p.Partitions), 1, MaxGroups),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// SetSplits changes when the partitions of a table are divided without being
// asked. It is tried as CreateTable is; a token is as in TableSpec.
func (c *Control) SetSplits(ctx context.Context, name string, p SplitPolicy, token string) (*Table, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	if token == "" {
		token = rand.Text()
	}
	done, err := askFor[tableAnswer](ctx, c, kindAskSplits, &splitsBody{Token: token, Name: name, Policy: splitsItemOf(0, p)}, kindTableAnswer)
	if err != nil {
		return nil, fmt.Errorf("alter the splits of table %.64q: %w", name, err)
	}
	c.await(ctx, done.Version)
	if t, ok := c.Catalog().Table(name); ok && t.ID == done.Table {
		return t, nil
	}
	return nil, partition.Errorf(partition.CodeUnknown, "table %.64q was altered (catalog version %d), and is not in the catalog of this node", name, done.Version)
}

// splitsBody is both the request and the command.
type splitsBody struct {
	Token  string
	Name   string
	Policy splitsItem
}

// splitsItem is the split policy of a table, also on pages.
type splitsItem struct {
	Table      uint64
	Mode       SplitMode
	Load       uint64
	Size       int64
	RestMs     uint32
	Partitions uint32
}

func splitsItemOf(table uint64, p SplitPolicy) splitsItem {
	return splitsItem{
		Table: table, Mode: p.Mode, Load: p.Load, Size: p.Size,
		RestMs: uint32(min(p.Rest, maxSplitRest).Milliseconds()), Partitions: uint32(p.Partitions),
	}
}

// policy reads a policy from untrusted bytes.
func (i *splitsItem) policy() (SplitPolicy, *partition.Error) {
	p := SplitPolicy{i.Mode, i.Load, i.Size, time.Duration(i.RestMs) * time.Millisecond, int(i.Partitions)}
	return p, p.validate()
}

// applySplits changes a table's split policy.
func (s *state) applySplits(b *splitsBody) (*tableAnswer, *partition.Error) {
	digest := partition.Checksum(fmt.Appendf(nil, "splits\x00%q %d", b.Name, b.Policy))
	if done, ok, err := s.finished(b.Token, digest); ok {
		return done, err
	}
	t, ok := s.catalog.Table(b.Name)
	if !ok {
		return nil, partition.Errorf(partition.CodeNoSuchTable, "there is no table %.64q", b.Name)
	}
	p, err := b.Policy.policy()
	if err != nil {
		return nil, err
	}
	done := &tableAnswer{Table: t.ID, Version: t.Changed}
	if next := t.Splits.altered(p); next != t.Splits {
		done.Version = s.catalog.Version + 1
		changed := *t
		changed.Splits, changed.Changed = next, done.Version
		e := newEdit(s.catalog)
		e.putTable(&changed)
		s.catalog = e.apply(done.Version)
	}
	s.finish(b.Token, digest, done)
	return done, nil
}

// splitsPage is a page with split policies, of tables that are on it.
type splitsPage struct {
	Tasks  taskPage
	Splits []splitsItem
}

// putSplits adds policies to tables that were put before.
func (a *assembly) putSplits(items []splitsItem) error {
	for i := range items {
		t, ok := a.e.tables[items[i].Table]
		p, err := items[i].policy()
		switch {
		case err != nil:
			return err
		case !ok || t.Splits != SplitPolicy{} || p == SplitPolicy{}:
			return partition.Errorf(partition.CodeCorrupt, "catalog: a split policy of table %d, which is empty, there twice, or of a table that is elsewhere", items[i].Table)
		}
		t.Splits = p
	}
	return nil
}

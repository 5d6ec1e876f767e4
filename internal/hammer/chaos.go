//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/internal/chaos"
	"pando.dev/pando/internal/history"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

const (
	// chapterLasts is how long one load goes on until it is judged.
	chapterLasts = 60 * time.Second
	// chaosSlots is how many keys a load uses at once: so few that what one client
	// writes another one reads soon.
	chaosSlots = 6
	// chaosProbes is the time between two probes of each load.
	chaosProbes = 40 * time.Millisecond
	// bankLetter is where the bank's keys begin, in the last partition.
	bankLetter = "x"
)

// chaosTrial does all kinds of harm to five nodes, in namespaces and on disks of
// their own if this machine can.
func chaosTrial(ctx context.Context, t *trial) error {
	if t.opts.during == 0 {
		t.opts.during = 10 * time.Minute
		if t.opts.short {
			t.opts.during = time.Minute
		}
	}
	missing := chaos.Missing(labNodes)
	if len(missing) == 0 && !chaos.InSandbox() {
		return chaosSandboxed(ctx, t)
	}
	for _, m := range missing {
		fmt.Fprintf(t.out, "  MISSING %s\n", m)
	}
	if len(missing) > 0 {
		fmt.Fprintf(t.out, "  WITHOUT THE FAULTS OF NETWORK AND DISK: nodes share the loopback and the file system, only processes are harmed\n")
	} else if err := chaos.EnterSandbox(); err != nil {
		return err
	}
	l, c, err := newLab(t, len(missing) == 0)
	if err != nil {
		return err
	}
	defer func() {
		if e := l.close(); e != nil {
			t.violate("%v", e)
		}
	}()
	n, err := newNemesis(t, c, l)
	if err != nil {
		return err
	}
	defer n.keepTold()
	err = n.wreck(ctx)
	n.report()
	return err
}

// chaosSandboxed runs this trial in a sandbox, with the binary and the directory
// that are there already.
func chaosSandboxed(ctx context.Context, t *trial) error {
	args := append([]string{"chaos"}, t.opts.args...)
	args = append(args, "--binary", t.bin, "--dir", t.dir, "--for", t.opts.during.String())
	code, err := chaos.Sandboxed(ctx, args, t.out)
	if err == nil && code != 0 {
		err = fmt.Errorf("the trial in the sandbox ended with exit code %d: what it found is said above", code)
	}
	return err
}

// allInjuries is all the harm that is known here.
func allInjuries() []injury {
	return slices.Concat(processInjuries(), networkInjuries(), diskInjuries(), damageInjuries())
}

func newNemesis(t *trial, c *cluster, l *lab) (*nemesis, error) {
	t.opts.slots = or(t.opts.slots, chaosSlots)
	n := &nemesis{t: t, c: c, l: l, rng: t.rng, injected: map[fault.Class]int{}, during: map[fault.Class]times{}, ledgers: map[string][]*ledger{}}
	all := allInjuries()
	groups := strings.FieldsFunc(t.opts.only, func(r rune) bool { return r == ',' })
	for _, i := range all {
		asked := len(groups) == 0 || slices.Contains(groups, i.group) || slices.Contains(groups, i.class.String())
		if asked && (!i.network || l.hub != nil) && (!i.disk || l.hub != nil) {
			n.injuries = append(n.injuries, i)
		}
	}
	if len(n.injuries) == 0 {
		return nil, fmt.Errorf("no fault that is possible here is called %q", t.opts.only)
	}
	n.fronts = []*front{
		{name: tableName, replicas: 3, parts: []string{"a", "h", "p", bankLetter},
			spec: actors.TableSpec{Replicas: 3, SplitPoints: [][]byte{[]byte("g"), []byte("n"), []byte("t")}}},
		{name: "five", replicas: 5, parts: []string{"a", "p"}, spec: actors.TableSpec{Replicas: 5, SplitPoints: [][]byte{[]byte("n")}}},
		{name: "zoned", replicas: 3, parts: []string{"a"}, spec: actors.TableSpec{Replicas: 3, Policy: "zones:2"}},
	}
	return n, nil
}

// wreck starts the nodes and does harm for as long as it may, in chapters.
func (n *nemesis) wreck(ctx context.Context) error {
	if err := n.c.up(ctx); err != nil {
		return err
	}
	for _, f := range n.fronts {
		f.spec.Name = f.name
		if err := n.create(ctx, f); err != nil {
			return err
		}
	}
	filler, err := n.c.open(ctx)
	if err != nil {
		return err
	}
	defer filler.close()
	written, err := fillTable(ctx, filler, chaosFill)
	if err != nil {
		return err
	}
	v := &verdicts{n: n, s: filler, written: written, sealed: map[string]string{}, errs: map[string]int{}}
	defer v.report()
	end := time.Now().Add(n.t.opts.during)
	for i := 1; time.Now().Before(end); i++ {
		until := time.Now().Add(chapterLasts)
		if until.After(end) {
			until = end
		}
		if err := n.chapter(ctx, v, i, until); err != nil {
			return fmt.Errorf("chapter %d: %w", i, errors.Join(err, n.keepDisks(err)))
		}
	}
	return v.last(ctx)
}

// chaosFill is how many values of 64 KiB are there from the start, so that there
// is state on the disks.
const chaosFill = 64

// create makes a table and waits until it is whole.
func (n *nemesis) create(ctx context.Context, f *front) error {
	f.spec.Token = "create-" + f.name
	err := await(ctx, readyWait, "table "+f.name+" is made", func(ctx context.Context) error {
		return n.c.ask(ctx, func(ctx context.Context, api *httpapi.Client) error {
			_, err := api.CreateTable(ctx, f.spec)
			return err
		})
	})
	if err != nil {
		return err
	}
	return n.c.awaitWhole(ctx, f.name, f.replicas)
}

// chapter puts loads and a bank on the tables, does harm until the time is over,
// and judges what the clients were told.
func (n *nemesis) chapter(ctx context.Context, v *verdicts, number int, until time.Time) error {
	n.note("chapter %d", number)
	clients := max(1, n.t.opts.clients/4/len(n.fronts))
	for _, f := range n.fronts {
		var prefixes []string
		for _, p := range f.parts {
			if p != bankLetter {
				prefixes = append(prefixes, fmt.Sprintf("%s%d/", p, number))
			}
		}
		l, err := n.c.startLoadOn(ctx, target{table: f.name, clients: clients, prefixes: prefixes, every: chaosProbes})
		if err != nil {
			return err
		}
		defer l.close()
		f.load = l
	}
	b, err := n.c.openBank(ctx, tableName, fmt.Sprintf("%s%d/", bankLetter, number), 4, 2)
	if err != nil {
		return err
	}
	defer b.close()
	for time.Now().Before(until) {
		if err := n.episode(ctx); err != nil {
			return err
		}
		if err := pause(ctx, n.between(0, 150*time.Millisecond)); err != nil {
			return err
		}
	}
	if err := n.whole(ctx); err != nil {
		return fmt.Errorf("when all was healed: %w\n%s", err, n.picture(ctx))
	}
	return v.judge(ctx, b)
}

// keepDisks copies what a failure rests on off the disks, before they are gone.
func (n *nemesis) keepDisks(err error) error {
	if !n.t.opts.keep || err == nil {
		return nil
	}
	n.t.killAll()
	var errs []error
	for _, p := range n.l.nodes {
		if p.disk != nil {
			errs = append(errs, os.CopyFS(filepath.Join(n.t.dir, "kept-"+p.name), os.DirFS(p.dir)))
		}
	}
	return errors.Join(errs...)
}

// keepTold writes down what was done.
func (n *nemesis) keepTold() {
	if err := os.WriteFile(filepath.Join(n.t.dir, "nemesis.txt"), []byte(strings.Join(n.told, "\n")+"\n"), 0o600); err != nil {
		n.t.violate("keep what was done: %v", err)
	}
}

// verdicts judge chapter after chapter. What a chapter left behind is sealed by a
// digest, and looked at again at the end.
type verdicts struct {
	n       *nemesis
	s       *table // of tableName
	written []int
	sealed  map[string]string // digest by table and prefix
	bank    string            // the last report

	chapters, operations, acked, unknown, transfers, audits int
	errs                                                    map[string]int
}

// count adds up what the loads of a chapter have done.
func (v *verdicts) count() {
	for _, f := range v.n.fronts {
		for _, e := range f.load.history.Events() {
			v.operations++
			if e.Outcome == history.OutcomeUnknown {
				v.unknown++
			}
		}
		v.acked += f.load.acks.count(0, f.load.acks.now())
		for code, n := range f.load.errs { // a sum
			v.errs[code] += n
		}
	}
}

// report adds to the table of numbers what was judged, and found to be right
// unless a violation says otherwise.
func (v *verdicts) report() {
	t := v.n.t
	t.row("judged", "%d operations in %d chapters over %d tables: %d acknowledged writes, %d outcomes unknown; errors: %v", v.operations, v.chapters, len(v.n.fronts), v.acked, v.unknown, v.errs)
	t.row("bank", "%d transfers acknowledged, %d audits; in the last chapter %s", v.transfers, v.audits, v.bank)
	for _, ledgers := range v.n.ledgers { // in no order
		for _, l := range ledgers {
			t.row("log", "%s", l)
		}
	}
}

// judge judges the loads and the bank, which it stops.
func (v *verdicts) judge(ctx context.Context, b *bank) error {
	t := v.n.t
	b.stop()
	mark := len(t.rows)
	for _, f := range v.n.fronts {
		if err := t.judged(ctx, f.load); err != nil {
			return err
		}
	}
	if len(t.violations) == 0 {
		t.rows = t.rows[:mark] // they are summed up at the end
	}
	v.count()
	report, wrong, err := b.balanceBooks(ctx, v.s)
	if err != nil {
		return err
	}
	v.bank = report
	v.transfers += b.acknowledged()
	v.audits += b.audits
	for _, w := range wrong {
		t.violate("bank: %s", w)
	}
	if err := readFilled(ctx, v.s, v.written); err != nil {
		t.violate("what was there from the start: %v", err)
	}
	v.chapters++
	for _, f := range v.n.fronts {
		if err := v.sameEverywhere(ctx, f); err != nil {
			return err
		}
		for _, prefix := range f.load.prefixes {
			if err := v.seal(ctx, f.name, prefix); err != nil {
				return err
			}
		}
	}
	if err := v.seal(ctx, tableName, b.prefix); err != nil {
		return err
	}
	if err := v.n.lookAtLogs(ctx); err != nil {
		return err
	}
	if n := len(t.violations); n > 0 {
		return fmt.Errorf("%d promises were broken", n)
	}
	return nil
}

// digestOf reads all keys with a prefix.
func (v *verdicts) digestOf(ctx context.Context, name, prefix string) (string, error) {
	s, err := v.n.c.openOn(ctx, name, v.n.c.links())
	if err != nil {
		return "", err
	}
	defer s.close()
	pairs, keys, err := s.scan(ctx, prefix)
	return digest(pairs, keys), err
}

func (v *verdicts) seal(ctx context.Context, name, prefix string) (err error) {
	v.sealed[name+" "+prefix], err = v.digestOf(ctx, name, prefix)
	return err
}

// last looks at everything that was sealed once more.
func (v *verdicts) last(ctx context.Context) error {
	changed := 0
	for at, want := range v.sealed { // each on its own
		name, prefix, _ := strings.Cut(at, " ")
		got, err := v.digestOf(ctx, name, prefix)
		if err != nil {
			return fmt.Errorf("read %s again: %w", at, err)
		}
		if got != want {
			changed++
			v.n.t.violate("what was written to %s, read and judged, is another now", at)
		}
	}
	v.n.t.row("read again", "%d sets of keys of %d chapters at the end, %d of them changed", len(v.sealed), v.chapters, changed)
	return nil
}

// sameEverywhere reads each partition of a table from each of its replicas and
// wants the same from all. The load has been stopped.
func (v *verdicts) sameEverywhere(ctx context.Context, f *front) error {
	c := v.n.c
	if err := c.awaitWhole(ctx, f.name, f.replicas); err != nil {
		return err
	}
	ps, err := c.partitions(ctx, f.name)
	if err != nil {
		return err
	}
	for _, p := range ps {
		digests := map[string][]partition.NodeID{}
		for _, r := range p.Replicas {
			d, err := v.replica(ctx, f.name, p, r.Node)
			if err != nil {
				return fmt.Errorf("read %s from its replica on %s: %w", p.Group, r.Node, err)
			}
			digests[d] = append(digests[d], r.Node)
		}
		if len(digests) != 1 {
			v.n.t.violate("the replicas of %s of table %s hold different states: %v", p.Group, f.name, digests)
		}
	}
	return nil
}

// replicaWait bounds the reading of one replica.
const replicaWait = 20 * time.Second

// replica reads one partition from the replica on one node: no other is in reach.
func (v *verdicts) replica(ctx context.Context, name string, p actors.PartitionInfo, at partition.NodeID) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, replicaWait)
	defer cancel()
	n, err := v.n.c.byID(at)
	if err != nil {
		return "", err
	}
	s, err := v.n.c.openOn(ctx, name, []string{n.reached()})
	if err != nil {
		return "", err
	}
	defer s.close()
	o := client.ReadOptions{Level: client.Stale, MinIndex: p.Commit}
	pairs, keys, err := s.scanAt(ctx, o, partition.KeyRange{Lo: p.Lo, Hi: p.Hi})
	return digest(pairs, keys), err
}

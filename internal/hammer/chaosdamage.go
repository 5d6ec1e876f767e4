//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// damageInjuries are what befalls the disk of a node that is down. One at a time,
// and what is found must be made good before the next.
func damageInjuries() []injury {
	list := []injury{
		{class: fault.FlipLog, weight: 4, do: damaged(flipLog)},
		{class: fault.FlipState, weight: 4, do: damaged(flipState)},
		{class: fault.FlipIdentity, weight: 2, do: damaged(flipIdentity)},
		{class: fault.LostWrite, weight: 2, do: damaged(loseWrite)},
		{class: fault.Misdirect, weight: 2, do: damaged(misdirect)},
		{class: fault.CutFile, weight: 2, do: damaged(cutState)},
		{class: fault.RollBack, weight: 2, do: rollNodeBack},
		{class: fault.Wipe, weight: 1, do: wipe},
		{class: fault.SwapDisks, weight: 1, do: swapDisks},
	}
	for i := range list {
		list[i].group, list[i].takes, list[i].damage = "damage", 1, true
	}
	return list
}

// scar is a change of a file, and what was there before.
type scar struct {
	path   string
	at     int64
	before []byte
}

func (s scar) String() string {
	return fmt.Sprintf("%d bytes at %d of %s", len(s.before), s.at, filepath.Base(s.path))
}

// write puts bytes into a file that is there.
func (s scar) write(b []byte) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, s.at)
	return errors.Join(err, f.Sync(), f.Close())
}

// undo makes the file what it was.
func (s scar) undo() error { return s.write(s.before) }

// flip changes one byte.
func flip(path string, at int64, mask byte) (scar, error) {
	s := scar{path, at, make([]byte, 1)}
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	_, err = f.ReadAt(s.before, at)
	if err = errors.Join(err, f.Close()); err != nil {
		return s, err
	}
	return s, s.write([]byte{s.before[0] ^ mask})
}

// damaged kills a node, damages its disk, and starts it. A node may refuse to
// start on such a disk, with a word that says why; then the damage is undone, as if
// the disk had been mended from elsewhere.
func damaged(do func(*nemesis, *patient) (scar, error)) deed {
	return func(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
		if err := n.noteDamage(ctx, p); err != nil {
			return nil, err
		}
		n.end(p)
		s, err := do(n, p)
		if err != nil {
			return nil, err
		}
		n.note("damaged %s: %s", p.name, s)
		p.excused = true
		return func(ctx context.Context) error {
			err := n.startDamaged(ctx, p)
			var ended *endedError
			if errors.As(err, &ended) {
				n.refused(p, s.String())
				return errors.Join(s.undo(), p.start())
			}
			if err != nil {
				return err
			}
			return n.readAll(ctx, p)
		}, nil
	}
}

// startDamaged starts a node, and once more if it ends.
func (n *nemesis) startDamaged(ctx context.Context, p *patient) (err error) {
	var ended *endedError
	for range 2 {
		if err := p.start(); err != nil {
			return err
		}
		if err = n.c.awaitReady(ctx, p.node); !errors.As(err, &ended) {
			return err
		}
	}
	return err
}

// refused wants a node that does not start to say why.
func (n *nemesis) refused(p *patient, what string) {
	printed := p.proc.printed()
	n.note("%s does not start after %s: %s", p.name, what, lastLine(printed))
	if !slices.ContainsFunc([]string{"corrupt", "damage", "newer_format", "refused", "session_expired"}, func(word string) bool { return strings.Contains(printed, word) }) {
		n.t.violate("%s ended after %s and does not say what it found: %s", p.name, what, printed)
	}
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// held is which replica of each group a node has.
type held map[partition.GroupID]partition.ReplicaID

// heldBy asks until somebody answers.
func (n *nemesis) heldBy(ctx context.Context, p *patient) (h held, err error) {
	err = await(ctx, masterWait, "somebody tells who holds what", func(ctx context.Context) error {
		ps, err := n.c.partitions(ctx, "")
		h = held{}
		for _, q := range ps {
			if r, ok := replicaOn(q, p.id); ok {
				h[q.Group] = r
			}
		}
		return err
	})
	return h, err
}

// harden makes what was done to a node's files durable: they are to be what they
// are also after a power cut.
func (p *patient) harden() error {
	if p.disk == nil {
		return nil
	}
	return p.disk.Sync()
}

// noteDamage notes what a node holds before its disk is damaged.
func (n *nemesis) noteDamage(ctx context.Context, p *patient) (err error) {
	n.damages++
	n.damagedNode = p
	n.damagedHeld, err = n.heldBy(ctx, p)
	return err
}

// readAll reads what the node's own replicas hold, so that damage is found that
// only a read finds. What cannot be read is replaced.
func (n *nemesis) readAll(ctx context.Context, p *patient) error {
	ps, err := n.c.partitions(ctx, "")
	if err != nil {
		return err
	}
	for _, q := range ps {
		if _, ok := replicaOn(q, p.id); !ok {
			continue
		}
		s, err := n.c.openOn(ctx, q.Table, []string{p.reached()})
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, verifyWait)
		_, _, err = s.scanAt(limited, client.ReadOptions{Level: client.Stale}, partition.KeyRange{Lo: q.Lo, Hi: q.Hi})
		cancel()
		s.close()
		if err != nil {
			n.note("%s does not answer everything: %.200v", p.name, err)
		}
	}
	return nil
}

// behindTail is how many probes, at least and at most, lie behind the damaged
// part of the log: so many that it had been synced, for certain.
const (
	behindTailLeast = 40
	behindTailMost  = 200
)

// recent finds a record near the end of the log that had surely been synced: a
// probe of the load with many later ones behind it, of whichever table. Where
// none is found it is a drawn place in a drawn segment.
func (n *nemesis) recent(p *patient) (path string, at int64, err error) {
	segments, err := filepath.Glob(filepath.Join(p.dir, "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		return "", 0, fmt.Errorf("no log segments in %s: %w", p.dir, err)
	}
	slices.Sort(segments)
	type found struct {
		path   string
		at     int64
		number int
	}
	var all []found
	prefix := regexp.QuoteMeta(n.fronts[0].load.prefixes[0] + probeList)
	probe := regexp.MustCompile(prefix + `(\d{8})`)
	for _, path := range segments[max(0, len(segments)-3):] {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", 0, err
		}
		for _, m := range probe.FindAllSubmatchIndex(b, -1) {
			number, _ := strconv.Atoi(string(b[m[2]:m[3]])) // it is digits
			all = append(all, found{path, int64(m[0]), number})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return a.number - b.number })
	if len(all) <= behindTailLeast {
		path := segments[n.rng.IntN(max(1, len(segments)-1))]
		return path, n.rng.Int64N(64 << 10), nil
	}
	back := behindTailLeast + n.rng.IntN(min(behindTailMost, len(all))-behindTailLeast)
	f := all[len(all)-1-back]
	return f.path, f.at, nil
}

// flipLog changes a byte near the synced end of the log, in the middle, or in the
// head of a segment.
func flipLog(n *nemesis, p *patient) (scar, error) {
	path, at, err := n.recent(p)
	if err != nil {
		return scar{}, err
	}
	switch n.rng.IntN(4) {
	case 0:
		at = n.rng.Int64N(at + 1)
	case 1:
		at = n.rng.Int64N(64)
	default:
		at = max(0, at-n.rng.Int64N(40)) // the record's head, or its payload
	}
	return flip(path, at, byte(1<<n.rng.IntN(8)))
}

// logBlock is what is lost or misdirected of the log.
const logBlock = 4 << 10

// loseWrite leaves zeros where a synced block was.
func loseWrite(n *nemesis, p *patient) (scar, error) {
	return n.overwrite(p, func([]byte, int64) []byte { return make([]byte, logBlock) })
}

// misdirect puts a block where another one was.
func misdirect(n *nemesis, p *patient) (scar, error) {
	return n.overwrite(p, func(segment []byte, at int64) []byte {
		from := n.rng.Int64N(at/logBlock+1) * logBlock
		return bytes.Clone(segment[from : from+logBlock])
	})
}

func (n *nemesis) overwrite(p *patient, with func(segment []byte, at int64) []byte) (scar, error) {
	path, at, err := n.recent(p)
	if err != nil {
		return scar{}, err
	}
	at = max(0, at/logBlock-1) * logBlock // the block before, so that none of it is behind the place
	b, err := os.ReadFile(path)
	if err != nil {
		return scar{}, err
	}
	if at+logBlock > int64(len(b)) {
		return scar{}, fmt.Errorf("%s has %d bytes and no block at %d", path, len(b), at)
	}
	s := scar{path, at, bytes.Clone(b[at : at+logBlock])}
	return s, s.write(with(b, at))
}

// files lists the files of a node that fit the patterns and are not empty.
func (p *patient) files(patterns ...string) (fit []string, err error) {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(p.dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				fit = append(fit, path)
			}
		}
	}
	if len(fit) == 0 {
		return nil, fmt.Errorf("%s has no file like %q", p.name, patterns)
	}
	return fit, nil
}

// drawFile draws a file, of each kind alike.
func (n *nemesis) drawFile(p *patient, patterns ...string) (string, int64, error) {
	n.rng.Shuffle(len(patterns), func(i, j int) { patterns[i], patterns[j] = patterns[j], patterns[i] })
	for i := range patterns {
		fit, err := p.files(patterns[i])
		if err != nil {
			continue
		}
		path := fit[n.rng.IntN(len(fit))]
		info, err := os.Stat(path)
		if err != nil {
			return "", 0, err
		}
		return path, info.Size(), nil
	}
	return "", 0, fmt.Errorf("%s has no file like %q", p.name, patterns)
}

// flipState changes a byte of a file of some replica's state.
func flipState(n *nemesis, p *patient) (scar, error) {
	path, size, err := n.drawFile(p, "stores/*/*/*.sst", "stores/*/*/*.sst", "stores/*/*/MANIFEST-*", "stores/*/*/OPTIONS-*", "stores/*/*/STORE")
	if err != nil {
		return scar{}, err
	}
	return flip(path, n.rng.Int64N(size), byte(1<<n.rng.IntN(8)))
}

// flipIdentity changes a byte of what a node knows of itself.
func flipIdentity(n *nemesis, p *patient) (scar, error) {
	path, size, err := n.drawFile(p, "NODE", "NODE", "CATALOG", "gossip.snap")
	if err != nil {
		return scar{}, err
	}
	return flip(path, n.rng.Int64N(size), byte(1<<n.rng.IntN(8)))
}

// cutState takes the end off a file of some replica's state.
func cutState(n *nemesis, p *patient) (scar, error) {
	path, size, err := n.drawFile(p, "stores/*/*/*.sst", "stores/*/*/MANIFEST-*", "stores/*/*/STORE")
	if err != nil {
		return scar{}, err
	}
	at := n.rng.Int64N(size)
	b, err := os.ReadFile(path)
	if err != nil {
		return scar{}, err
	}
	s := scar{path, at, b[at:]}
	return s, errors.Join(os.Truncate(path, at), p.harden())
}

// spare is the node, or if its disk must not be lost another one: a seat of the
// control group is not made anew from its peers.
func (n *nemesis) spare(p *patient) *patient {
	if p.ordinal >= labSeats {
		return p
	}
	q := n.l.nodes[labSeats+n.rng.IntN(labNodes-labSeats)]
	q.busy = true
	n.note("... at %s, which holds no seat", q.name)
	return q
}

// rollNodeBack puts an older copy of a node's disk back.
func rollNodeBack(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	p = n.spare(p)
	if err := n.noteDamage(ctx, p); err != nil {
		return nil, err
	}
	n.end(p)
	copied := filepath.Join(n.t.dir, fmt.Sprintf("%s.copy%d", p.name, p.starts))
	defer os.RemoveAll(copied)
	if err := os.CopyFS(copied, os.DirFS(p.dir)); err != nil {
		return nil, fmt.Errorf("copy a data directory: %w", err)
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	if err := n.c.awaitReady(ctx, p.node); err != nil {
		return nil, err
	}
	if err := pause(ctx, n.between(500*time.Millisecond, runOn)); err != nil {
		return nil, err
	}
	n.end(p)
	if err := os.RemoveAll(p.dir); err != nil {
		return nil, err
	}
	if err := os.CopyFS(p.dir, os.DirFS(copied)); err != nil {
		return nil, fmt.Errorf("put a data directory back: %w", err)
	}
	p.excused = true
	return func(context.Context) error { return errors.Join(p.harden(), p.start()) }, nil
}

// wipe starts a node with an empty disk.
func wipe(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	p = n.spare(p)
	if err := n.noteDamage(ctx, p); err != nil {
		return nil, err
	}
	n.end(p)
	if err := os.RemoveAll(p.dir); err != nil {
		return nil, err
	}
	p.excused = true
	return func(context.Context) error { return errors.Join(p.harden(), p.start()) }, nil
}

// swapDisks starts two nodes with each other's disk. They must refuse, and then
// get their own.
func swapDisks(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	q := n.others(p)[0]
	q.busy = true
	p.excused, q.excused = true, true
	n.end(p)
	n.end(q)
	return func(ctx context.Context) error {
		p.dir, q.dir = q.dir, p.dir
		err := errors.Join(p.start(), q.start())
		if err == nil {
			limited, cancel := context.WithTimeout(ctx, refuseWait)
			defer cancel()
			for _, r := range []*patient{p, q} {
				code, err := r.proc.wait(limited)
				if err != nil {
					n.t.violate("%s goes on with the disk of another node", r.name)
				} else if code != 11 {
					n.t.violate("%s ended with exit code %d on the disk of another node, not 11: %s", r.name, code, r.proc.printed())
				}
				n.end(r)
			}
		}
		p.dir, q.dir = q.dir, p.dir
		return errors.Join(err, p.start(), q.start())
	}, nil
}

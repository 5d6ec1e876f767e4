package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// liar is a transport whose answers of some kinds are changed.
type liar struct {
	Transport
	mu  sync.Mutex
	lie func(k kind, b []byte, err error) ([]byte, error) // nil: the truth
}

func (l *liar) Call(ctx context.Context, to partition.NodeID, request []byte) ([]byte, error) {
	b, err := l.Transport.Call(ctx, to, request)
	l.mu.Lock()
	lie := l.lie
	l.mu.Unlock()
	r, bad := decode[requestBody](kindRequest, request)
	if lie == nil || bad != nil {
		return b, err
	}
	k, bad := kindOf(r.Body)
	if bad != nil {
		return b, err
	}
	return lie(k, b, err)
}

// answers rewrites an answer that went well.
func answers(f func(*answerBody)) func(kind, []byte, error) ([]byte, error) {
	return func(_ kind, b []byte, err error) ([]byte, error) {
		if err != nil {
			return b, err
		}
		a, err := decode[answerBody](kindAnswer, b)
		if err != nil {
			return b, nil
		}
		f(a)
		return encode(kindAnswer, a), nil
	}
}

// TestAnswersThatCannotBeRead: a change whose answer is lost or cannot be read is
// never told as one that did not happen, no answer takes a node down, and what was
// asked under one token happens once.
func TestAnswersThatCannotBeRead(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
	var l *liar
	b := n.start("b", 0, func(c *Config) {
		l = &liar{Transport: c.Transport}
		c.Transport, c.CallTimeout = l, 100*time.Millisecond
	})
	b.wait(t, "the control group", func() bool { return b.Admitted() })
	_, err := b.CreateTable(deadline(t, 10*time.Second), TableSpec{Name: "t", Kind: "kv", Replicas: 1, Nodes: nodesOf("a")})
	mustDo(t, err)
	g := b.Catalog().Groups("t")[0]
	spec := TableSpec{Name: "u", Kind: "kv", Replicas: 1, Nodes: nodesOf("a"), Token: "u"}
	asks := map[string]func(context.Context) error{
		"create": func(ctx context.Context) error { _, err := b.CreateTable(ctx, spec); return err },
		"alter": func(ctx context.Context) error {
			_, err := b.AlterTable(ctx, "t", TableChange{Replicas: 1, Token: "alter"})
			return err
		},
		"update": func(ctx context.Context) error {
			return b.UpdateGroups(ctx, []GroupUpdate{{Group: g.ID, Range: g.Range, RangeVersion: g.RangeVersion, Membership: g.Membership, Master: "b", Epoch: 9}})
		},
		"permits": func(ctx context.Context) error { _, err := b.Permits(ctx, []partition.GroupID{g.ID}); return err },
		"locks": func(ctx context.Context) error {
			_, err := b.AcquireLocks(ctx, []LockRequest{{Group: g.ID, Replica: 1}})
			return err
		},
	}
	lies := map[string]func(kind, []byte, error) ([]byte, error){
		"lost":     func(kind, []byte, error) ([]byte, error) { return nil, syscall.ECONNRESET },
		"nothing":  func(kind, []byte, error) ([]byte, error) { return nil, nil },
		"too long": func(kind, []byte, error) ([]byte, error) { return make([]byte, MaxCallBytes+1), nil },
		"a newer version": func(_ kind, b []byte, err error) ([]byte, error) {
			return append([]byte{codecVersion + 1}, b[min(1, len(b)):]...), err
		},
		"cut":           func(_ kind, b []byte, err error) ([]byte, error) { return b[:len(b)/2], err },
		"an empty body": answers(func(a *answerBody) { a.Body = nil }),
		"another body":  answers(func(a *answerBody) { a.Body = []byte{codecVersion, byte(kindAskSeat), 0x90} }),
	}
	unknown := func(what, how string, ask func(context.Context) error, lie func(kind, []byte, error) ([]byte, error)) {
		l.set(lie)
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
		err := ask(ctx)
		cancel()
		if code := partition.CodeOf(err); code != partition.CodeUnknown {
			t.Errorf("%s, the answer is %s: %v", what, how, err)
		}
		l.set(nil)
	}
	for what, ask := range asks {
		for how, lie := range lies {
			unknown(what, how, ask, lie)
		}
	}
	short := answers(func(a *answerBody) { a.Body = command(t, kindPermitAnswer, &permitAnswer{}) })
	unknown("permits", "short", asks["permits"], short)
	unknown("permit", "short", func(ctx context.Context) error {
		_, err := b.Decree(ctx, DecreeRequest{Group: g.ID, Node: "a", Replica: 1})
		return err
	}, short)
	unknown("drop", "cut", func(ctx context.Context) error { return b.DropTable(ctx, "t", "drop") }, lies["cut"])
	if got, err := b.CreateTable(deadline(t, 10*time.Second), spec); err != nil || got.Name != "u" {
		t.Errorf("the same request again: %v", err)
	}
	if all := a.Catalog().Tables(); len(all) > 2 {
		t.Errorf("there are %d tables", len(all))
	}
}

func (l *liar) set(lie func(kind, []byte, error) ([]byte, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie = lie
}

// TestMeetsLiars: a node that meets a seat which answers nonsense goes on looking,
// and finds the control group when it answers again.
func TestMeetsLiars(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
	l := &liar{}
	asked := 0
	lies := []func(*answerBody){
		func(a *answerBody) { a.Group = 0 }, func(a *answerBody) { a.Body = nil },
		func(a *answerBody) { a.Body = []byte{codecVersion, byte(kindRenewAnswer), 0x91, 0x91, 0xa0} },
	}
	done := make(chan struct{})
	l.lie = func(k kind, b []byte, err error) ([]byte, error) {
		if k != kindAskRenew || asked >= len(lies)*2 {
			return b, err
		}
		if asked++; asked == len(lies)*2 {
			close(done)
		}
		return answers(lies[asked/2%len(lies)])(k, b, err)
	}
	b := n.start("b", 0, func(c *Config) { l.Transport, c.Transport = c.Transport, l })
	<-done
	b.wait(t, "the control group", func() bool { return b.Admitted() && b.Status().State == Ready })
}

// TestCopyOfALiar: pages that make no sense leave the catalog as it is, and the next
// ones bring it up to date.
func TestCopyOfALiar(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
	var l *liar
	b := n.start("b", 0, func(c *Config) {
		l = &liar{Transport: c.Transport}
		c.Transport = l
	})
	b.wait(t, "the control group", func() bool { return b.Synced() })
	for i, lie := range []func(*pageBody){
		func(p *pageBody) { p.Version, p.Floor = p.Version+9, p.Version+99 },
		func(p *pageBody) { p.More, p.Next = true, cursor{} },
		func(p *pageBody) { p.Groups = append(p.Groups, groupItem{ID: 77, Table: 99}) },
		func(p *pageBody) { p.Tables = append(p.Tables, p.Tables...) },
		func(p *pageBody) { p.Tables = nil; p.Version++ },
	} {
		lied := make(chan struct{}, 100)
		l.set(func(k kind, b []byte, err error) ([]byte, error) {
			if k != kindAskCatalog {
				return b, err
			}
			return answers(func(a *answerBody) {
				if p, err := decode[pageBody](kindPage, a.Body); err == nil && p.Version > 0 {
					lie(p)
					a.Body = encode(kindPage, p)
					select {
					case lied <- struct{}{}:
					default:
					}
				}
			})(k, b, err)
		})
		name := fmt.Sprintf("t%d", i)
		_, err := a.CreateTable(deadline(t, 10*time.Second), TableSpec{Name: name, Kind: "kv", Replicas: 1, Nodes: nodesOf("a")})
		mustDo(t, err)
		b.Hint(a.Catalog().Version)
		<-lied
		l.set(nil)
		b.wait(t, name, func() bool { _, ok := b.Catalog().Table(name); return ok })
	}
}

// TestSeatsOnABadDisk: what a node cannot write down it does not say.
func TestSeatsOnABadDisk(t *testing.T) {
	broken := errors.New("the disk is full")
	abc := []partition.NodeID{"a", "b", "c"}
	p := proposal{ID: 1, Seats: abc}
	own := seatState{Phase: bound, Proposal: proposal{ID: 2, Seats: []partition.NodeID{"a", "b", "d"}}}
	seen := view{candidates: abc}
	for name, x := range map[string]struct {
		st seatState
		do func(*seats) error
	}{
		"accept":  {seatState{}, func(s *seats) error { _, err := s.answer(&askSeat{Proposal: p}, seen); return err }},
		"kill":    {seatState{}, func(s *seats) error { _, err := s.answer(&askSeat{Proposal: p, Kill: true}, seen); return err }},
		"reject":  {own, func(s *seats) error { _, err := s.answer(&askSeat{Proposal: p}, seen); return err }},
		"propose": {seatState{}, func(s *seats) error { _, err := s.tick(seen, 7, true); return err }},
		"learn":   {seatState{}, func(s *seats) error { return s.learn(p) }},
		"found":   {seatState{Phase: bound, Proposal: proposal{ID: 3, Seats: abc[:1]}}, func(s *seats) error { _, err := s.tick(seen, 7, true); return err }},
		"told of another": {own, func(s *seats) error {
			return s.answered("b", own.Proposal.ID, &seatAnswer{Stand: standMember, Founded: p})
		}},
		"told of a rejection": {own, func(s *seats) error { return s.answered("b", own.Proposal.ID, &seatAnswer{Stand: standRejected}) }},
	} {
		s := &seats{self: "a", expect: 3, save: func(seatState) error { return broken }}
		s.resume(x.st)
		if err := x.do(s); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if s.st.Phase != x.st.Phase || s.st.Proposal.ID != x.st.Proposal.ID || len(s.st.Rejected) != len(x.st.Rejected) {
			t.Errorf("%s: it became %+v", name, s.st)
		}
	}
	s := &seats{self: "a", expect: 3, save: func(seatState) error { return nil }}
	s.resume(own)
	for what, err := range map[string]error{
		"learn":    s.learn(proposal{ID: 1}),
		"answered": s.answered("b", own.Proposal.ID, &seatAnswer{Stand: standMember, Founded: proposal{ID: 9}}),
		"saved":    validateSeatState(&seatState{Phase: bound, Proposal: proposal{ID: 1}}, "a"),
	} {
		if partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestFoundsWhenTheDiskLetsIt: a node that cannot write down what it founds, or open
// its store, says so, and goes on by itself when it can.
func TestFoundsWhenTheDiskLetsIt(t *testing.T) {
	n := newTestNet(t)
	var joined atomic.Bool
	dir := filepath.Join(n.dir, "a")
	a := n.start("a", 1, func(c *Config) { c.Joined = joined.Load })
	mustDo(t, os.RemoveAll(dir))
	joined.Store(true)
	a.wait(t, "why", func() bool { return strings.Contains(a.Status().Why, "save what is known of the seats") })
	mustDo(t, os.MkdirAll(dir, 0o700))
	mustDo(t, os.WriteFile(filepath.Join(dir, "store"), nil, 0o600))
	a.wait(t, "seats", func() bool { return a.Status().HasSeat })
	n.until("the reason", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return strings.Contains(a.seats.why, "store")
	})
	mustDo(t, os.Remove(filepath.Join(dir, "store")))
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
}

// TestSeatThatStopped: a seat that meets a command of a newer program serves nobody
// any more and says why; its catalog stays readable.
func TestSeatThatStopped(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
	_, err := a.CreateTable(deadline(t, 10*time.Second), TableSpec{Name: "t", Kind: "kv", Replicas: 1, Nodes: nodesOf("a")})
	mustDo(t, err)
	s := a.usableSeat()
	mustDo(t, s.raft.Apply([]byte{codecVersion + 1, byte(kindDrop), 0x90}, time.Second).Error())
	a.wait(t, "the stop", func() bool { st := a.Status(); return st.State == Stopped && strings.Contains(st.Why, "version") })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := a.DropTable(ctx, "t", ""); partition.CodeOf(err) != partition.CodeUnavailable || a.usableSeat() != nil {
		t.Errorf("a change: %v", err)
	}
	if _, ok := a.Catalog().Table("t"); !ok {
		t.Error("the catalog is gone")
	}
}

// TestStartRefused: a part that cannot work is not begun, and leaves nothing open.
func TestStartRefused(t *testing.T) {
	dir := t.TempDir()
	good := Config{Node: "a", Boot: 1, Dir: dir, Expect: 1, Transport: &testLink{done: make(chan struct{})}, Peers: func() []PeerInfo { return nil }}
	for name, spoil := range map[string]func(*Config){
		"no node":             func(c *Config) { c.Node = "" },
		"a file as directory": func(c *Config) { c.Dir = filepath.Join(filepath.Dir(dir), "none\x00") },
	} {
		c := good
		spoil(&c)
		if x, err := Start(c); err == nil {
			t.Errorf("%s: it starts", name)
			mustDo(t, x.Close())
		}
	}
}

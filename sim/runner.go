package sim

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// GCPercent is the GOGC for a process that only simulates. Worlds are small and
// short: at its default the collector would take a quarter of the time.
const GCPercent = 800

// Swarm runs the plans of many seeds, several at once.
type Swarm struct {
	// From is the first seed; Seeds how many there are (0: until the context
	// ends).
	From, Seeds uint64
	// Shapes are drawn from by their weights (default DefaultShapes).
	Shapes  []Shape
	Planted planted.Set
	// Workers is how many plans run at once (default GOMAXPROCS).
	Workers int
	// KeepGoing: a violation does not end the swarm. At most MaxFailures are kept
	// (default 100), the rest is counted.
	KeepGoing   bool
	MaxFailures int
	// Progress, if set, is told the sums now and then, about every Every (default
	// 1 s), from the goroutine that called Run.
	Progress func(*Summary)
	Every    time.Duration

	play func(*Plan) *Result // tests; nil: Plan.Run
}

// Failure is a plan that ended in a violation.
type Failure struct {
	Plan   *Plan
	Result *Result
}

// Summary is what a swarm came to. Seeds count in order, so two runs of the same
// swarm that end by themselves have the same sums.
type Summary struct {
	From, Seeds uint64 // the first seed, and how many have ended
	Violations  uint64
	Failures    []Failure // in the order of seeds

	Simulated     partition.Time
	Events, Steps uint64
	Counts        Counts
	Marks         Marks
	Shapes        map[string]uint64 // seeds by shape

	// Took is how long it took, CPU the processor time of the whole process in
	// the meantime (0 where that is not known).
	Took, CPU time.Duration
	// Stopped: the context ended it.
	Stopped bool
	// Oldest is the seed that has been under way for longest, and since when.
	Oldest      uint64
	OldestSince time.Time
}

// Run runs the swarm until it is through, a violation ends it, or ctx does; then
// the runs under way end too, and do not count.
func (s *Swarm) Run(ctx context.Context) *Summary {
	r := &swarmRun{
		Swarm: *s, next: s.From, running: map[uint64]time.Time{}, early: map[uint64]Failure{},
		sum: &Summary{From: s.From, Marks: Marks{}, Shapes: map[string]uint64{}},
	}
	r.defaults(ctx.Done())
	r.moved = sync.NewCond(&r.mu)
	began, cpu := time.Now(), processTime()
	ended := make(chan struct{})
	var workers sync.WaitGroup
	for range r.Workers {
		workers.Go(r.work)
	}
	go func() {
		workers.Wait()
		close(ended)
	}()
	stop := context.AfterFunc(ctx, r.stop)
	defer stop()
	tick := time.NewTicker(r.Every)
	defer tick.Stop()
	finish := func() *Summary {
		r.mu.Lock()
		defer r.mu.Unlock()
		sum := *r.sum
		sum.Took, sum.CPU, sum.Stopped = time.Since(began), processTime()-cpu, ctx.Err() != nil
		sum.Oldest, sum.OldestSince = r.oldest()
		return &sum
	}
	for {
		select {
		case <-ended:
			r.rest()
			return finish()
		case <-tick.C:
			if r.Progress != nil {
				r.Progress(finish())
			}
		}
	}
}

// ahead bounds how many seeds may end before one that was begun earlier, per
// worker.
const ahead = 256

// swarmRun is a swarm under way.
type swarmRun struct {
	Swarm

	mu      sync.Mutex
	moved   *sync.Cond
	next    uint64 // the seed to begin next
	halted  bool   // begin no more
	running map[uint64]time.Time
	early   map[uint64]Failure // ended, and an earlier one has not
	sum     *Summary
}

func (r *swarmRun) defaults(stop <-chan struct{}) {
	if len(r.Shapes) == 0 {
		r.Shapes = DefaultShapes()
	}
	if r.Workers < 1 {
		r.Workers = runtime.GOMAXPROCS(0)
	}
	if r.MaxFailures < 1 {
		r.MaxFailures = 100
	}
	if r.Every <= 0 {
		r.Every = time.Second
	}
	if r.play == nil {
		r.play = func(p *Plan) *Result { return PlayWith(p, Options{Stop: stop}) }
	}
}

func (r *swarmRun) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halted = true
	r.moved.Broadcast()
}

// work runs plans until there are none.
func (r *swarmRun) work() {
	for {
		seed, ok := r.begin()
		if !ok {
			return
		}
		p := Draw(seed, Pick(seed, r.Shapes))
		p.Planted = r.Planted
		r.end(seed, Failure{p, r.play(p)})
	}
}

// begin hands out the next seed.
func (r *swarmRun) begin() (seed uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.halted && len(r.early) >= ahead*r.Workers {
		r.moved.Wait()
	}
	if r.halted || r.Seeds > 0 && r.next-r.From >= r.Seeds {
		return 0, false
	}
	seed = r.next
	r.next++
	r.running[seed] = time.Now()
	return seed, true
}

// end takes a result, and counts all that no earlier seed is missing before.
func (r *swarmRun) end(seed uint64, f Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, seed)
	if f.Result.Stopped {
		return
	}
	r.early[seed] = f
	if f.Result.Violation != nil && !r.KeepGoing {
		r.halted = true
	}
	for {
		f, ok := r.early[r.From+r.sum.Seeds]
		if !ok || r.over() {
			break
		}
		delete(r.early, r.From+r.sum.Seeds)
		r.sum.add(f, r.MaxFailures)
	}
	r.moved.Broadcast()
}

// rest counts what ended though an earlier seed was stopped.
func (r *swarmRun) rest() {
	for _, seed := range slices.Sorted(maps.Keys(r.early)) {
		if !r.over() {
			r.sum.add(r.early[seed], r.MaxFailures)
		}
	}
}

// over reports whether what ended later does not count.
func (r *swarmRun) over() bool { return !r.KeepGoing && r.sum.Violations > 0 }

func (r *swarmRun) oldest() (seed uint64, since time.Time) {
	for s, t := range r.running {
		if since.IsZero() || t.Before(since) || t.Equal(since) && s < seed {
			seed, since = s, t
		}
	}
	return seed, since
}

// add counts one seed.
func (s *Summary) add(f Failure, keep int) {
	x := f.Result
	s.Seeds++
	s.Simulated += x.Simulated
	s.Events += x.Events
	s.Steps += x.Steps
	s.Counts.Add(&x.Counts)
	s.Marks.Add(x.Marks)
	s.Shapes[f.Plan.Shape]++
	if x.Violation == nil {
		return
	}
	s.Violations++
	if len(s.Failures) < keep {
		s.Failures = append(s.Failures, f)
	}
}

// Missed are the marks of goals that were not reached though their budget of
// seeds was.
func (s *Summary) Missed(goals []Goal) []Goal {
	return slices.DeleteFunc(slices.Clone(goals), func(g Goal) bool { return s.Marks[g.Mark] > 0 || s.Seeds < g.Seeds })
}

// Play runs a plan; a panic that escapes the run is a violation too.
func Play(p *Plan) *Result { return PlayWith(p, Options{}) }

// PlayWith is Play with options. A plan that makes no sense is not run.
func PlayWith(p *Plan, o Options) (res *Result) {
	if err := p.Validate(); err != nil {
		return &Result{Violation: &Violation{What: "plan", Why: err.Error()}}
	}
	defer func() {
		if x := recover(); x != nil {
			res = &Result{Violation: &Violation{What: "panic", Why: fmt.Sprintf("%v\n%s", x, shortStack(debug.Stack()))}}
		}
	}()
	return p.Run(o)
}

// shortStack leaves out what every stack of a panic begins with.
func shortStack(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "panic(") })
	if at < 0 {
		return string(stack)
	}
	lines = lines[min(at+2, len(lines)):]
	return strings.Join(lines[:min(12, len(lines))], "\n")
}

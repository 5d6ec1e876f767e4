package sim

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// Minimizer makes a failing plan smaller while the same checker objects.
type Minimizer struct {
	// Limit bounds the time (default 30 s). What was reached by then is the
	// result.
	Limit time.Duration
	// Most bounds how many plans are tried (0: Limit alone does). Unlike time it gives
	// the same result on every machine.
	Most int
	// Workers is how many plans are tried at once (default GOMAXPROCS). It does
	// not change the result, unless the time runs out.
	Workers int
	// Progress, if set, is told of every smaller plan.
	Progress func(*Plan, *Result)

	play func(*Plan) *Result // tests; nil: Play
}

// Minimized is what became of a plan.
type Minimized struct {
	Plan   *Plan
	Result *Result
	Runs   int
	Took   time.Duration
	// Complete: no step would make it smaller still. Otherwise the time ran out.
	Complete bool
}

// Minimize shrinks a plan: first to an explicit list of faults, then to fewer of
// them, then knobs towards calm ones, fewer groups, nodes and operations, and a
// shorter time, and around again until nothing helps.
func (m Minimizer) Minimize(ctx context.Context, p *Plan) (*Minimized, error) {
	if m.Limit <= 0 {
		m.Limit = 30 * time.Second
	}
	if m.Workers < 1 {
		m.Workers = runtime.GOMAXPROCS(0)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, m.Limit)
	defer cancel()
	if m.play == nil {
		m.play = func(p *Plan) *Result { return PlayWith(p, Options{Stop: ctx.Done()}) }
	}
	s := &shrink{Minimizer: m, ctx: ctx, best: p.Clone()}
	s.result = m.play(s.best)
	s.runs = 1
	if s.result.Stopped {
		return nil, ctx.Err()
	}
	if s.result.Violation == nil {
		return nil, errors.New("the plan passes: there is nothing to shrink")
	}
	s.what = s.result.Violation.What
	s.later()
	s.explicit()
	for {
		size := s.best.String()
		s.shorten()
		s.fewerFaults()
		s.simpler()
		s.milder()
		for seeds := uint64(16); seeds <= 64 && s.best.String() == size; seeds *= 4 {
			s.luckier(seeds)
		}
		if s.best.String() == size || s.over() {
			break
		}
	}
	return &Minimized{Plan: s.best, Result: s.result, Runs: s.runs, Took: time.Since(began), Complete: !s.over()}, nil
}

// shrink is a plan on its way down.
type shrink struct {
	Minimizer
	ctx    context.Context
	best   *Plan
	result *Result // of best
	what   string  // the checker that has to object
	runs   int
}

func (s *shrink) over() bool { return s.ctx.Err() != nil || s.Most > 0 && s.runs >= s.Most }

// first tries plans, several at once, and takes the first in order that still
// fails. It returns its place, or -1.
func (s *shrink) first(plans []*Plan) int {
	for at := 0; at < len(plans) && !s.over(); at += s.Workers {
		batch := plans[at:min(at+s.Workers, len(plans))]
		results := make([]*Result, len(batch))
		var tries sync.WaitGroup
		for i, p := range batch {
			tries.Go(func() {
				if p.Validate() == nil {
					results[i] = s.play(p)
				}
			})
		}
		tries.Wait()
		s.runs += len(batch)
		for i, res := range results {
			if res != nil && res.Violation != nil && res.Violation.What == s.what {
				s.best, s.result = batch[i], res
				if s.Progress != nil {
					s.Progress(s.best, res)
				}
				return at + i
			}
		}
	}
	return -1
}

// try is first with one plan.
func (s *shrink) try(p *Plan) bool { return s.first([]*Plan{p}) == 0 }

// changed is the best plan with a change.
func (s *shrink) changed(change func(*Plan)) *Plan {
	p := s.best.Clone()
	change(p)
	return p
}

// explicit turns the faults that followed points by chance into a list.
func (s *shrink) explicit() {
	if s.best.Knobs.PointRate == 0 {
		return
	}
	fired := s.result.Fired
	s.try(s.changed(func(p *Plan) {
		p.Points = fired
		p.Knobs.PointRate, p.Knobs.PointNames, p.Knobs.PointClasses = 0, "", ""
	}))
}

// later begins the plan shortly before the violation, with other seeds: what has
// gone on for a minute can often be had at once, and then every further try is
// quick. It comes before points are a list, since that counts from the beginning.
func (s *shrink) later() {
	const seeds = 24
	for !s.over() {
		end := min(s.result.Violation.At, s.best.Knobs.Length)
		if !slices.ContainsFunc([]partition.Time{8, 4, 2}, func(part partition.Time) bool {
			return s.withSeeds(seeds, func(p *Plan) { p.cutBefore(readable(end - end/part)) })
		}) {
			return
		}
	}
}

// cutBefore leaves out what comes before a time.
func (p *Plan) cutBefore(t partition.Time) {
	if t <= 0 || t >= p.Knobs.Length {
		return
	}
	p.Knobs.Length -= t
	p.Faults = slices.DeleteFunc(p.Faults, func(f Fault) bool { return f.At < t })
	for i := range p.Faults {
		p.Faults[i].At -= t
	}
}

// shorten ends the plan where the violation is, and earlier if it can be.
func (s *shrink) shorten() {
	until := func(t partition.Time) *Plan {
		return s.changed(func(p *Plan) {
			p.Knobs.Length = t
			for i := range p.Faults {
				if p.Faults[i].At >= t {
					p.Faults = p.Faults[:i]
					break
				}
			}
		})
	}
	at := s.result.Violation.At
	if at < s.best.Knobs.Length {
		s.try(until(at.Truncate(time.Millisecond) + time.Millisecond))
	}
	// In the recovery after the faults the end may come earlier.
	for step := s.best.Knobs.Length / 2; step >= 10*time.Millisecond && !s.over(); step /= 2 {
		if t := readable(s.best.Knobs.Length - step); t > 0 {
			s.try(until(t))
		}
	}
}

// fewerFaults takes away faults: large parts of the list first, then smaller
// ones, then each.
func (s *shrink) fewerFaults() {
	for chunk := (s.faults() + 1) / 2; chunk >= 1 && !s.over(); {
		var plans []*Plan
		for lo := 0; lo < s.faults(); lo += chunk {
			plans = append(plans, s.without(lo, min(lo+chunk, s.faults())))
		}
		switch at := s.first(plans); {
		case at >= 0:
			s.sweep(at*chunk, chunk)
			chunk = min(chunk, max(1, (s.faults()+1)/2))
		case chunk == 1:
			return
		default:
			chunk = (chunk + 1) / 2
		}
		if s.faults() == 0 {
			return
		}
	}
}

// sweep takes away further parts of the size behind one that could go.
func (s *shrink) sweep(lo, chunk int) {
	for lo < s.faults() && !s.over() {
		if !s.try(s.without(lo, min(lo+chunk, s.faults()))) {
			lo += chunk
		}
	}
}

// luckier takes away one fault and tries other seeds: what the fault was needed
// for may come about by itself.
func (s *shrink) luckier(seeds uint64) {
	for i := s.faults() - 1; i >= 0 && !s.over(); i-- {
		s.withSeeds(seeds, func(p *Plan) { p.drop(i, i+1) })
	}
}

func (s *shrink) faults() int { return len(s.best.Faults) + len(s.best.Points) }

// without is the best plan without the faults from lo to below hi.
func (s *shrink) without(lo, hi int) *Plan {
	return s.changed(func(p *Plan) { p.drop(lo, hi) })
}

// drop takes out the faults from lo to below hi; those at points count behind the
// others.
func (p *Plan) drop(lo, hi int) {
	n := len(p.Faults)
	p.Points = append(p.Points[:max(0, lo-n)], p.Points[max(0, hi-n):]...)
	p.Faults = append(p.Faults[:min(lo, n)], p.Faults[min(hi, n):]...)
}

package sim

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"testing"
)

// TestSamePlanSameRun: the same plan gives the same run whatever the number of
// processors and the work of the garbage collector, byte for byte (G9).
func TestSamePlanSameRun(t *testing.T) {
	run := func(p *Plan) (*Result, []byte) {
		var out bytes.Buffer
		r := p.Run(Options{Trace: &out})
		return r, out.Bytes()
	}
	shapes := DefaultShapes()
	for i := range uint64(8) {
		p := Draw(i, shapes[int(i)%len(shapes)])
		p.Knobs.Length = min(p.Knobs.Length, 15e9)
		want, trace := run(p)
		for _, gogc := range []int{10, 400} {
			for procs := 1; procs <= 2; procs++ {
				was, before := debug.SetGCPercent(gogc), runtime.GOMAXPROCS(procs)
				got, again := run(p.Clone())
				quiet := p.Run(Options{})
				debug.SetGCPercent(was)
				runtime.GOMAXPROCS(before)
				if got.TraceHash != want.TraceHash || quiet.TraceHash != want.TraceHash || got.Events != want.Events || got.Counts != want.Counts {
					t.Fatalf("seed %d: hash %x after %d events, first %x after %d, without a trace %x", i, got.TraceHash, got.Events, want.TraceHash, want.Events, quiet.TraceHash)
				}
				if !bytes.Equal(trace, again) {
					t.Fatalf("seed %d: the traces differ", i)
				}
			}
		}
	}
}

// TestSeedsDiffer: another seed is another run; without that the test above could
// not fail.
func TestSeedsDiffer(t *testing.T) {
	a := (&Plan{Seed: 1, Knobs: Calm()}).Run(Options{})
	b := (&Plan{Seed: 2, Knobs: Calm()}).Run(Options{})
	if a.TraceHash == b.TraceHash {
		t.Fatal("two seeds give one run")
	}
}

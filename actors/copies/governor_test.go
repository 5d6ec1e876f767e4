package copies

import (
	"math/rand/v2"
	"testing"
	"time"
)

// disk is a model of what a log's writes take beside a copy: nothing more up to a
// rate, and then the more the faster the copy is.
type disk struct {
	r     *rand.Rand
	slow  float64 // of everything
	bears int64   // bytes per second that do no harm
}

func (d *disk) window(n int, rate int64) []time.Duration {
	f := d.slow
	if over := float64(rate-d.bears) / float64(d.bears); over > 0 {
		f *= 1 + over
	}
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = time.Duration(f * float64(time.Millisecond) * (0.5 + d.r.Float64()/2))
	}
	return out
}

// PG3, SCL-7: beside writers a copy gets about as fast as the disk bears and not
// much faster, alone as fast as it may, and it finds out when all has become slower.
func TestGovernor(t *testing.T) {
	const most = 64 << 20
	d := &disk{r: rand.New(rand.NewPCG(1, 2)), slow: 1, bears: 16 << 20}
	g := &Governor{Most: most}
	rate := int64(0)
	run := func(windows, writes int, copying bool) (mean int64) {
		for range windows {
			at := rate
			if !copying {
				at = 0
			}
			rate = g.Window(d.window(writes, at), copying)
			mean += rate / int64(windows)
			if rate < 1<<20 || rate > most {
				t.Fatalf("a rate of %d", rate)
			}
		}
		return mean
	}
	if run(40, 100, false); rate != most {
		t.Errorf("before anything was copied the rate is %d", rate)
	}
	run(25, 100, true) // 5 s to find it
	if mean := run(200, 100, true); mean < d.bears*7/10 || mean > d.bears*15/10 {
		t.Errorf("%d bytes per second on a disk that bears %d", mean, d.bears)
	}
	if run(patientWindows, 0, true); rate != most {
		t.Errorf("nobody writes, and the rate is %d", rate)
	}
	run(25, 4, true) // few writes are looked at in several windows at once
	if mean := run(400, 4, true); mean > d.bears*15/10 {
		t.Errorf("%d bytes per second beside a few writes", mean)
	}
	d.slow = 3
	run(150, 100, true)
	if mean := run(200, 100, true); mean < d.bears*6/10 || mean > d.bears*15/10 {
		t.Errorf("%d bytes per second when all is slower, quiet is %v", mean, g.Quiet())
	}
}

// A node that begins with a copy does not take its own noise for quiet, and one
// without a bound, or with one below the least, has that.
func TestGovernorAtTheBounds(t *testing.T) {
	d := &disk{r: rand.New(rand.NewPCG(3, 4)), slow: 1, bears: 8 << 20}
	g := &Governor{Most: 64 << 20}
	if rate := g.Window(d.window(100, 64<<20), true); rate != leastRate {
		t.Errorf("without a quiet window: %d", rate)
	}
	if q := g.Quiet(); q != 0 {
		t.Errorf("noise is taken for quiet: %v", q)
	}
	if g.Window(d.window(100, leastRate), true); g.Quiet() == 0 || g.Quiet() > time.Millisecond {
		t.Errorf("quiet is %v", g.Quiet())
	}
	if rate := (&Governor{Most: -1}).Window(d.window(100, 0), true); rate != -1 {
		t.Errorf("no bound is %d", rate)
	}
	low := &Governor{Most: 1000}
	for range 100 {
		if rate := low.Window(d.window(30, 1<<30), true); rate != 1000 {
			t.Fatalf("the bound is 1000, the rate %d", rate)
		}
	}
}

package sim

import "pando.dev/pando/partition"

// clock is a node's monotonic clock: it runs at 1+ppm/1e6 of true time since
// trueBase, when it showed base. It never goes back.
type clock struct {
	trueBase, base partition.Time
	ppm            int64
}

func (c *clock) at(now partition.Time) partition.Time {
	d := now - c.trueBase
	return c.base + d + d/1_000_000*partition.Time(c.ppm) + d%1_000_000*partition.Time(c.ppm)/1_000_000
}

// until is the true time to wait from now until the clock shows at least t.
func (c *clock) until(now, t partition.Time) partition.Time {
	d := t - c.at(now)
	if d <= 0 {
		return 0
	}
	return d*1_000_000/partition.Time(1_000_000+c.ppm) + 1
}

// rate changes how fast the clock runs from now on.
func (c *clock) rate(now partition.Time, ppm int64) {
	c.base, c.trueBase, c.ppm = c.at(now), now, ppm
}

// jump lets the clock show d more from now on.
func (c *clock) jump(now, d partition.Time) {
	c.base, c.trueBase = c.at(now)+max(0, d), now
}

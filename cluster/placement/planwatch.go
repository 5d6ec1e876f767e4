package placement

import "pando.dev/pando/partition"

// WatchConfig are the limits of a Watch. Zero fields have the defaults.
type WatchConfig struct {
	// High (default 1.05): a node above it in a dimension that counts is too full.
	High float64
	// Windows (default 3) is in how many consecutive windows it has to be: more
	// follows changes later, fewer follows noise.
	Windows int
	// On and Off (defaults 0.25 and 0.15, of the capacity of the busiest node): a
	// dimension counts from On until it has been below Off for OffWindows (default
	// 30). The gap keeps what counts from changing with the time of day.
	On, Off    float64
	OffWindows int
}

func (c WatchConfig) withDefaults() WatchConfig {
	if c.High <= 0 {
		c.High = 1.05
	}
	if c.Windows <= 0 {
		c.Windows = 3
	}
	if c.On <= 0 {
		c.On = 0.25
	}
	if c.Off <= 0 {
		c.Off = min(0.15, c.On)
	}
	if c.OffWindows <= 0 {
		c.OffWindows = 30
	}
	return c
}

// Watch decides when to level: it looks at the nodes once a window (10 s), after
// the window's loads were brought into the layout. It is what stands between
// measurements and moves, so that noise moves nothing.
type Watch struct {
	cfg    WatchConfig
	over   map[partition.NodeID]int // windows in a row
	active [Dims]bool
	below  [Dims]int // windows in a row
}

// NewWatch returns a watch that has seen nothing.
func NewWatch(cfg WatchConfig) *Watch {
	return &Watch{cfg: cfg.withDefaults(), over: map[partition.NodeID]int{}}
}

// Window takes a look. It returns what a PlanConfig should have as Hot and
// Active; Hot is empty if nothing should be leveled now, never nil.
func (w *Watch) Window(l *Layout) (hot []partition.NodeID, active *[Dims]bool) {
	w.activate(l)
	counts := w.active
	s := newSearch(l, PlanConfig{Active: &counts}.withDefaults())
	hot = []partition.NodeID{}
	for i := range l.nodes {
		id := l.nodes[i].ID
		if !s.open[i] || s.key(int32(i)) <= w.cfg.High {
			delete(w.over, id)
			continue
		}
		if w.over[id]++; w.over[id] >= w.cfg.Windows {
			hot = append(hot, id)
		}
	}
	return hot, &counts
}

// activate finds which dimensions count.
func (w *Watch) activate(l *Layout) {
	for d := range Dims {
		part, any := 0.0, false
		for i := range l.nodes {
			use, c := l.use[i][d], l.nodes[i].Capacity[d]
			any = any || use > 0
			if c <= 0 {
				part = max(part, 1)
			} else if !l.nodes[i].Lost {
				part = max(part, float64(use)/float64(c))
			}
		}
		switch {
		case !any:
			w.active[d] = false
		case part > w.cfg.On:
			w.active[d], w.below[d] = true, 0
		case part < w.cfg.Off:
			if w.below[d]++; w.below[d] >= w.cfg.OffWindows {
				w.active[d] = false
			}
		default:
			w.below[d] = 0
		}
	}
	w.active[DimReplicas] = w.active[DimReplicas] && !w.active[DimBytes]
	w.active[DimMasters] = w.active[DimMasters] && !w.active[DimLoad]
}

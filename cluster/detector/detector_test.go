package detector

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// trouble is what is wrong from some second on, and what the verdict says of it.
type trouble struct {
	name     string
	nodes    int
	sample   func(x *circle, id partition.NodeID, s int) Sample
	kind     Kind
	subject  string
	evidence []string
}

func troubleOfNodes() []trouble {
	return []trouble{
		{
			name: "a slow disk", nodes: 5,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				m := x.calm(id)
				if id == "n3" && s > 60 {
					m.Sync *= 10
				}
				return m
			},
			kind: SlowDisk, subject: "n3",
			evidence: []string{"the syncs of its log took 30ms, 10.0 times the 3ms that are the median of 4 other nodes, for 1m", "said by n1, n2, n3, n4, n5"},
		},
		{
			name: "a disk that hangs", nodes: 3,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				m := x.calm(id)
				if id == "n1" && s > 60 {
					m.Sync = time.Duration(s-60) * time.Second
				}
				return m
			},
			kind: SlowDisk, subject: "n1", evidence: []string{"median of 2 other nodes"},
		},
		{
			name: "a disk that all wait for", nodes: 3,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				m := x.calm(id)
				if s > 60 {
					if m.Sync = 0; id == "n1" {
						m.Sync = time.Duration(s%10+1) * time.Second
					} else if s%10 == 9 {
						m.Sync = 3 * time.Millisecond
					}
				}
				return m
			},
			kind: SlowDisk, subject: "n1", evidence: []string{"times the 3ms that are the median of 2 other nodes"},
		},
		{
			name: "too little processor", nodes: 3,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				m := x.calm(id)
				if id == "n2" && s > 60 {
					m.Late = 120 * time.Millisecond
				}
				return m
			},
			kind: Overloaded, subject: "n2", evidence: []string{"its timers were late by 120ms, 60.0 times the 2ms"},
		},
		{
			name: "full queues", nodes: 3,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				m := x.calm(id)
				if id == "n2" && s > 60 {
					m.Queue = 1000
				}
				return m
			},
			kind: Overloaded, subject: "n2", evidence: []string{"its fullest queue was 100 % full against 1 %, the median of 2 other nodes"},
		},
	}
}

func troubleOfLinks() []trouble {
	return []trouble{
		{
			name: "a slow link is not its nodes' fault", nodes: 5,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				return x.slowed(id, func(a, b partition.NodeID) bool { return s > 60 && linkOf(a, b) == linkOf("n2", "n4") })
			},
			kind: SlowLink, subject: "n2-n4",
			evidence: []string{"there and back took 40ms and 40ms by the word of the two ends, usual are 2ms and 2ms; 18 ways of other links were compared"},
		},
		{
			name: "a slow link of three nodes", nodes: 3,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				return x.slowed(id, func(a, b partition.NodeID) bool { return s > 60 && linkOf(a, b) == linkOf("n1", "n2") })
			},
			kind: SlowLink, subject: "n1-n2", evidence: []string{"4 ways of other links"},
		},
		{
			name: "a node whose links are all slow", nodes: 5,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				return x.slowed(id, func(a, b partition.NodeID) bool { return s > 60 && is("n5")(a, b) })
			},
			kind: Overloaded, subject: "n5", evidence: []string{"4 of its 4 links are slower than usual by the word of both ends"},
		},
	}
}

func otherTrouble() []trouble {
	return []trouble{
		{
			name: "a node that restarts", nodes: 3,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				m := x.calm(id)
				if id == "n3" {
					m.Boot = uint64(min(1+s/40, 5))
				}
				return m
			},
			kind: Flapping, subject: "n3", evidence: []string{"it started 4 times anew within 10m0s, now as incarnation 5"},
		},
		{
			name: "a node that all lose", nodes: 4,
			sample: func(x *circle, id partition.NodeID, s int) Sample { return x.losing(id, s, is("n1")) },
			kind:   Flapping, subject: "n1", evidence: []string{"node n1 was lost at least 4 times within 10m0s by n2, n3, n4"},
		},
		{
			name: "a link that two nodes lose", nodes: 4,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				return x.losing(id, s, func(a, b partition.NodeID) bool { return linkOf(a, b) == linkOf("n1", "n3") })
			},
			kind: SlowLink, subject: "n1-n3", evidence: []string{"was lost at least 4 times within 10m0s by", "no others"},
		},
		{
			name: "a hot group", nodes: 3,
			sample: func(x *circle, id partition.NodeID, s int) Sample {
				m := x.calm(id)
				m.Hot = GroupLoad{Group: 1, Load: 300}
				if id == "n2" {
					m.Load, m.Hot = 9000, GroupLoad{Group: 17, Load: 8000}
				}
				return m
			},
			kind: HotGroup, subject: "g17", evidence: []string{"a load of 8000/s on node n2, which alone is more than the 1000 that are the median of 2 other nodes"},
		},
	}
}

func TestVerdicts(t *testing.T) {
	for _, x := range slices.Concat(troubleOfNodes(), troubleOfLinks(), otherTrouble()) {
		t.Run(x.name, func(t *testing.T) {
			c := newCircle(t, x.nodes, Config{})
			c.sample = func(id partition.NodeID, s int) Sample { return x.sample(c, id, s) }
			c.run(180)
			for _, id := range c.ids() {
				v := c.verdict(id)
				if v.Kind != x.kind || v.Subject != x.subject || !v.Confirmed || v.Advice() == "" {
					t.Fatalf("on %s: %+v", id, v)
				}
				for _, part := range x.evidence {
					if !strings.Contains(v.Evidence, part) {
						t.Errorf("on %s: evidence %q lacks %q", id, v.Evidence, part)
					}
				}
			}
		})
	}
}

// What hits everybody is nobody's fault, and neither is what passes.
func TestNoVerdict(t *testing.T) {
	for name, sample := range map[string]func(x *circle, id partition.NodeID, s int) Sample{
		"all disks are slow": func(x *circle, id partition.NodeID, s int) Sample {
			m := x.calm(id)
			m.Sync *= time.Duration(1 + 9*(s/60%2))
			return m
		},
		"all links are slow": func(x *circle, id partition.NodeID, s int) Sample {
			return x.slowed(id, func(a, b partition.NodeID) bool { return s > 60 })
		},
		"all are overloaded": func(x *circle, id partition.NodeID, s int) Sample {
			m := x.calm(id)
			m.Late, m.Queue, m.Load, m.Hot = time.Second, 1000, 9000, GroupLoad{Group: 3, Load: 8000}
			return m
		},
		"a burst": func(x *circle, id partition.NodeID, s int) Sample {
			m := x.calm(id)
			if id == "n2" && s%120 < 20 {
				m.Sync *= 100
			}
			return m
		},
		"far away, as ever": func(x *circle, id partition.NodeID, s int) Sample {
			return x.slowed(id, func(a, b partition.NodeID) bool { return linkOf(a, b) == linkOf("n1", "n2") })
		},
		"nobody's trouble": func(x *circle, id partition.NodeID, s int) Sample {
			m := x.calm(id)
			m.Sync, m.Load = 40*time.Microsecond, 1
			if id == "n1" {
				m.Sync, m.Late, m.Queue, m.Load, m.Hot = 450*time.Microsecond, 19*time.Millisecond, 99, 100, GroupLoad{Group: 9, Load: 100}
			}
			return m
		},
		"one restart": func(x *circle, id partition.NodeID, s int) Sample {
			m := x.calm(id)
			m.Boot = uint64(1 + s/150)
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCircle(t, 5, Config{})
			c.sample = func(id partition.NodeID, s int) Sample { return sample(c, id, s) }
			c.run(400)
			for _, id := range c.ids() {
				if len(c.told[id]) > 0 {
					t.Fatalf("on %s: %+v", id, c.told[id])
				}
			}
		})
	}
}

// Two nodes cannot say which of them is the odd one.
func TestTwoNodesJudgeNobody(t *testing.T) {
	c := newCircle(t, 2, Config{})
	c.sample = func(id partition.NodeID, s int) Sample {
		m := c.calm(id)
		if id == "n1" {
			m.Sync, m.Late, m.Queue = time.Second, time.Second, 1000
		}
		return m
	}
	c.run(300)
	if all := c.nodes["n1"].Verdicts(); len(all) > 0 {
		t.Fatalf("%+v", all)
	}
}

// One node's opinion is shown and not acted on: it may be the sick one.
func TestOneOpinionIsNotConfirmed(t *testing.T) {
	for _, plant := range []mistake{noMistake, noConfirmation} {
		c := newCircle(t, 4, Config{plant: plant})
		c.sample = func(id partition.NodeID, s int) Sample { return c.calm(id) }
		c.run(10)
		// Only n1 ever hears that n4 is slow.
		d, now := c.nodes["n1"], c.now
		for s := range 60 {
			var heard []Sample
			for _, id := range c.ids() {
				m := c.calm(id)
				m.Node = id
				if id == "n4" {
					m.Sync *= 10
				}
				heard = append(heard, m)
			}
			d.Observe(now+time.Duration(s+1)*time.Second, heard)
		}
		v := c.verdict("n1")
		if _, sick := v.SickNode(); v.Subject != "n4" || sick != (plant == noConfirmation) {
			t.Errorf("mistake %d: %+v", plant, v)
		}
	}
}

// Two others are believed even against the own figures: the node that hears
// nobody may be the sick one.
func TestDeafNodeBelievesTwoOthers(t *testing.T) {
	c := newCircle(t, 4, Config{})
	c.sample = func(id partition.NodeID, s int) Sample {
		m := c.calm(id)
		if id == "n4" {
			m.Sync *= 10
		}
		return m
	}
	c.deaf["n4"] = true
	c.run(100)
	if all := c.nodes["n4"].Verdicts(); len(all) != 0 {
		t.Fatalf("it compared itself with itself: %+v", all)
	}
	claim := Claim{Kind: SlowDisk, Node: "n4"}
	heard := []Sample{{Node: "n1", Boot: 1, Claims: []Claim{claim}}, {Node: "n4", Boot: 1}}
	c.nodes["n4"].Observe(c.now+time.Second, heard)
	if all := c.nodes["n4"].Verdicts(); len(all) != 0 {
		t.Fatalf("one other was enough: %+v", all)
	}
	heard = append(heard, Sample{Node: "n2", Boot: 1, Claims: []Claim{claim}})
	c.nodes["n4"].Observe(c.now+2*time.Second, heard)
	if v := c.verdict("n4"); !v.Confirmed || v.Evidence != "the figures here do not show it; said by n1, n2" {
		t.Fatalf("%+v", v)
	}
}

// Two others are a second ahead: the evidence is what is known here so far.
func TestEvidenceBeforeTheOwnClaim(t *testing.T) {
	c := newCircle(t, 3, Config{})
	c.sample = func(id partition.NodeID, s int) Sample {
		m := c.calm(id)
		m.Hot = GroupLoad{Group: 9, Load: 900}
		if id == "n3" {
			m.Sync *= 10
			m.Load, m.Hot = 9000, GroupLoad{Group: 7, Load: 8000}
		}
		return m
	}
	c.run(20)
	for _, id := range []partition.NodeID{"n1", "n2"} {
		c.said[id] = []Claim{{Kind: SlowDisk, Node: "n3"}, {Kind: HotGroup, Group: 7}, {Kind: Overloaded, Node: "n3"}}
	}
	c.run(1)
	want := []string{
		"the syncs of its log took 30ms, 10.0 times the 3ms that are the median of 2 other nodes, for 20s; said by n1, n2",
		"the figures here do not show it; said by n1, n2",
		"a load of 8000/s on node n3, which alone is more than the 1000 that are the median of 2 other nodes, for 20s; said by n1, n2",
	}
	for i, v := range c.nodes["n3"].Verdicts() {
		if v.Evidence != want[i] || !v.Confirmed || (v.Own > 0) != (i != 1) {
			t.Errorf("%s: %+v", v.ID, v)
		}
	}
}

// A node that is late itself finds everybody late, and says nothing about others
// (the rule of Lifeguard).
func TestLateNodeSaysNothingOfOthers(t *testing.T) {
	for _, plant := range []mistake{noMistake, ownFaultIgnored} {
		c := newCircle(t, 5, Config{plant: plant})
		c.sample = func(id partition.NodeID, s int) Sample {
			m := c.calm(id)
			if id == "n1" {
				m.Late = time.Second
			}
			if id == "n2" {
				m.Sync *= 10
			}
			return m
		}
		c.run(100)
		got := slices.Contains(c.said["n1"], Claim{Kind: SlowDisk, Node: "n2"})
		if !slices.Contains(c.said["n1"], Claim{Kind: Overloaded, Node: "n1"}) || got != (plant == ownFaultIgnored) {
			t.Errorf("mistake %d: n1 says %v", plant, c.said["n1"])
		}
	}
}

// A node that most slow links have in common is to blame, and not the links.
func TestBlameMistakeIsSeen(t *testing.T) {
	c := newCircle(t, 5, Config{plant: noBlame})
	c.sample = func(id partition.NodeID, s int) Sample {
		return c.slowed(id, func(a, b partition.NodeID) bool { return s > 60 && is("n5")(a, b) })
	}
	c.run(180)
	if all := c.nodes["n1"].Verdicts(); len(all) != 4 || all[0].Kind != SlowLink {
		t.Fatalf("%+v", all)
	}
}

// A verdict ends after five quiet minutes and no earlier, however often the
// trouble comes back; then it is history.
func TestVerdictEndsAfterQuietTime(t *testing.T) {
	for _, plant := range []mistake{noMistake, noHysteresis} {
		c := newCircle(t, 3, Config{plant: plant})
		c.sample = func(id partition.NodeID, s int) Sample {
			m := c.calm(id)
			if id == "n3" && s < 1200 && s%200 < 100 {
				m.Sync *= 10
			}
			return m
		}
		c.run(1200)
		began := 0
		for _, v := range c.told["n1"] {
			if v.Until == 0 && !v.Confirmed {
				began++
			}
		}
		if (began == 1) != (plant == noMistake) {
			t.Errorf("mistake %d: %d verdicts began in 20 minutes", plant, began)
		}
		c.run(400)
		if all := c.nodes["n1"].Verdicts(); len(all) > 0 {
			t.Errorf("mistake %d: still in force: %+v", plant, all)
		}
		h := c.nodes["n1"].History()
		if len(h) == 0 || h[0].Until == 0 || h[0].Subject != "n3" {
			t.Errorf("mistake %d: history %+v", plant, h)
		}
	}
}

// Seconds that the detector's own node missed are not counted.
func TestMissedRoundsAreNotCounted(t *testing.T) {
	d := New(Config{Self: "n1"})
	heard := []Sample{{Node: "n1", Sync: time.Millisecond}, {Node: "n2", Sync: time.Millisecond}, {Node: "n3", Sync: time.Second}}
	now := partition.Time(0)
	for range 100 {
		now += 3 * time.Second
		d.Observe(now, heard)
	}
	if all := d.Verdicts(); len(all) > 0 || d.Missed() != 99 {
		t.Fatalf("missed %d, %+v", d.Missed(), all)
	}
}

// Nobody is remembered for ever, and nobody who is silent says anything.
func TestSilentNodeIsForgotten(t *testing.T) {
	c := newCircle(t, 4, Config{})
	c.sample = func(id partition.NodeID, s int) Sample {
		m := c.losing(id, s, is("n4"))
		if id == "n4" {
			m.Sync *= 10
		}
		return m
	}
	c.run(120)
	if d := c.nodes["n1"]; len(d.Verdicts()) != 2 || d.Heard() != 4 {
		t.Fatalf("%d heard, %+v", d.Heard(), d.Verdicts())
	}
	c.silent["n4"] = true
	c.run(700)
	d := c.nodes["n1"]
	if len(d.Verdicts()) != 0 || d.Heard() != 3 || len(d.nodes) != 3 || len(d.links) != 3 || len(d.History()) != 2 {
		t.Fatalf("%d heard, %d nodes, %d links, %+v", d.Heard(), len(d.nodes), len(d.links), d.Verdicts())
	}
}

func TestSampleCheck(t *testing.T) {
	for name, s := range map[string]Sample{
		"nameless":  {},
		"long name": {Node: partition.NodeID(strings.Repeat("x", 65))},
		"peers":     {Node: "a", Peers: make([]Peer, MaxPeers+1)},
		"peer":      {Node: "a", Peers: []Peer{{Node: partition.NodeID(strings.Repeat("x", 65))}}},
		"claims":    {Node: "a", Claims: make([]Claim, MaxClaims+1)},
		"claim":     {Node: "a", Claims: []Claim{{Kind: SlowLink, Node: "a", Peer: partition.NodeID(strings.Repeat("x", 65))}}},
		"negative":  {Node: "a", Sync: -1},
	} {
		if s.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := Sample{Node: "a", Boot: 2, Claims: []Claim{{Kind: SlowLink, Node: "a", Peer: "b"}, {Kind: HotGroup, Group: 3}}}
	b, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	var back Sample
	if err := json.Unmarshal(b, &back); err != nil || back.Check() != nil || fmt.Sprint(back) != fmt.Sprint(good) {
		t.Fatalf("%s became %+v: %v", b, back, err)
	}
}

// Of a kind that only a newer version knows, nothing follows.
func TestKindOfAnotherVersion(t *testing.T) {
	var s Sample
	if err := json.Unmarshal([]byte(`{"node":"a","claims":[{"kind":"new-in-the-next-version","node":"c"}]}`), &s); err != nil || s.Check() != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	d, other := New(Config{Self: "c"}), s
	other.Node = "b"
	if said := d.Observe(time.Second, []Sample{s, other}); len(said) > 0 || len(d.Verdicts()) > 0 {
		t.Fatalf("%+v", said)
	}
}

// BenchmarkRound is a second of a circle of 17 nodes that are well: what watching
// costs when there is nothing to see.
func BenchmarkRound(b *testing.B) {
	c := &circle{nodes: map[partition.NodeID]*Detector{}}
	for i := range 17 {
		c.nodes[partition.NodeID(fmt.Sprintf("n%d", i+1))] = nil
	}
	var heard []Sample
	for _, id := range c.ids() {
		s := c.calm(id)
		s.Node = id
		heard = append(heard, s)
	}
	d := New(Config{Self: "n1"})
	for i := range 60 {
		d.Observe(time.Duration(i)*time.Second, heard)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.Observe(time.Duration(60+i)*time.Second, heard)
		d.Claims()
		d.Verdicts()
	}
}

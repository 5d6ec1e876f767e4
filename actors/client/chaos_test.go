package client

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
)

var (
	chaosSeeds = flag.Int("chaos.seeds", 12, "how many seeds TestExactlyOnce runs")
	chaosSeed  = flag.Uint64("chaos.seed", 0, "run TestExactlyOnce with this seed only")
)

// Whatever goes wrong between client and group, a command is executed at most
// once, exactly once if the caller got a result, and never if the caller was
// told that it was not.
func TestExactlyOnce(t *testing.T) {
	if *chaosSeed != 0 {
		chaos(t, *chaosSeed)
		return
	}
	for seed := range uint64(*chaosSeeds) {
		chaos(t, seed+1)
	}
}

func chaos(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		c := newCluster(t, 3, "m")
		cfg := c.config()
		cfg.MaxSessions = 1 + rnd.IntN(8)
		if rnd.IntN(4) == 0 {
			cfg.Local = Local{Node: "n1", Backend: c.nodes["n1"]}
		}
		cl := c.open(cfg)
		rate := rnd.Float64() * 0.6
		locked := rand.New(rand.NewPCG(seed, 3)) // used with the cluster's lock held
		c.with(func() { c.fault = func(n *fakeNode, r *Request) fault { return c.chance(locked, rate, n, r) } })
		ended := map[string]error{}
		results := map[string]string{}
		ends := make(chan func(), 2000)
		const commands = 300
		for i := range commands {
			body := fmt.Sprintf("seed %d command %d", seed, i)
			key := []byte{byte('a' + rnd.IntN(26))}
			cl.Go(within(t, time.Duration(1+rnd.IntN(20000))*time.Millisecond), "t", key, []byte(body), func(r Result, err error) {
				ends <- func() { ended[body], results[body] = err, string(r.Body) }
			})
			if rnd.IntN(20) == 0 {
				time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
				c.with(func() { c.disturb(locked) })
			}
		}
		for range commands {
			(<-ends)()
		}
		cl.Close()
		time.Sleep(time.Minute) // what was held arrives
		c.judge(t, seed, ended, results)
	})
}

// chance draws a fault. It is called with the lock held, as is rnd.
func (c *cluster) chance(rnd *rand.Rand, rate float64, n *fakeNode, r *Request) fault {
	if rnd.Float64() > rate {
		return fault{}
	}
	codes := []partition.Code{
		partition.CodeBusy, partition.CodeUnavailable, partition.CodeNotMaster, partition.CodeWrongGroup,
		partition.CodeNotFound, partition.CodeTimeout, partition.CodeClosed, partition.CodeNewerEpoch,
	}
	if r.Op == OpPropose {
		codes = append(codes, partition.CodeUnknown)
	}
	switch rnd.IntN(9) {
	case 0:
		return fault{kill: true}
	case 1:
		return fault{kill: true, dropped: true}
	case 2:
		return fault{late: time.Duration(rnd.IntN(5000)) * time.Millisecond}
	case 3:
		return fault{held: time.Duration(rnd.IntN(5000)) * time.Millisecond}
	case 4:
		return fault{after: partition.CodeUnknown}
	case 5:
		return fault{twice: true}
	case 6:
		return fault{expire: rnd.IntN(5) == 0}
	case 7:
		return fault{before: codes[rnd.IntN(len(codes))], master: partition.NodeID(fmt.Sprintf("n%d", rnd.IntN(5)))}
	default:
		return fault{dropped: true}
	}
}

// disturb changes the cluster: masters move, nodes go and come, a partition is
// divided.
func (c *cluster) disturb(rnd *rand.Rand) {
	node := func() partition.NodeID { return partition.NodeID(fmt.Sprintf("n%d", 1+rnd.IntN(3))) }
	switch rnd.IntN(4) {
	case 0:
		c.groups[partition.GroupID(1+rnd.IntN(len(c.groups)))].master = node()
	case 1:
		n := c.nodes[node()]
		n.refuse = !n.refuse
		n.slow = time.Duration(rnd.IntN(400)) * time.Millisecond
		n.kill()
	case 2:
		c.groups[1].master = ""
		time.AfterFunc(300*time.Millisecond, func() { c.with(func() { c.groups[1].master = "n2" }) })
	case 3:
		if len(c.groups) < 5 {
			at := string([]byte{byte('b' + rnd.IntN(24))})
			for _, id := range []partition.GroupID{1, 2, 3, 4} {
				if g := c.groups[id]; g != nil && g.rng.Contains([]byte(at)) && string(g.rng.Lo) != at {
					c.split(id, at, g.members, node())
				}
			}
		}
		c.publish()
	}
}

func (c *cluster) judge(t *testing.T, seed uint64, ended map[string]error, results map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	outcomes := map[partition.Code]int{}
	for body, err := range ended {
		n := c.executed[body]
		code := partition.CodeOf(err)
		outcomes[code]++
		switch {
		case n > 1:
			t.Errorf("seed %d: %q was executed %d times", seed, body, n)
		case code == 0 && (n != 1 || results[body] != body+"#1"):
			t.Errorf("seed %d: %q succeeded with %q and was executed %d times", seed, body, results[body], n)
		case code == partition.CodeTimeout && n != 0:
			t.Errorf("seed %d: %q was executed and told not to be", seed, body)
		case code != 0 && code != partition.CodeTimeout && code != partition.CodeUnknown:
			t.Errorf("seed %d: %q ended with %v", seed, body, err)
		}
	}
	t.Logf("seed %d: %d ended well, %d unknown, %d timed out; %d groups",
		seed, outcomes[0], outcomes[partition.CodeUnknown], outcomes[partition.CodeTimeout], len(c.groups))
}

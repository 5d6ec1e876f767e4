package client

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// A table that was created after the routes were fetched is found, however long
// the nodes take to hear of it: none vouches for its catalog until it has.
func TestNewTable(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		c.with(func() {
			c.age = -1
			r := *c.routes
			r.Version++
			g := &fakeGroup{id: 9, rangeVersion: 1, members: []partition.NodeID{"n2"}, master: "n2", sessions: map[partition.SessionID]*fakeSession{}}
			c.groups[9] = g
			r.Tables = append(slices.Clone(r.Tables), Table{Name: "u", Kind: "fake", Partitions: []Partition{{Group: 9, RangeVersion: 1, Members: g.members}}})
			late := &r // the node hears of it a little later
			time.AfterFunc(800*time.Millisecond, func() { c.with(func() { c.routes, c.age = late, 0 }) })
		})
		if _, err := cl.Propose(within(t, time.Second), "u", nil, []byte("x")); err != nil {
			t.Fatal(err)
		}
	})
}

// Nobody is told that a table does not exist by nodes that cannot know: not while
// the control group is out of reach, nor by a catalog of before the call.
func TestMissingTableIsVouchedFor(t *testing.T) {
	for name, age := range map[string]time.Duration{"nobody knows": -1, "an old catalog": time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
				c.with(func() { c.age = age })
				_, err := cl.Propose(within(t, time.Second), "none", []byte("a"), nil)
				wantCode(t, err, partition.CodeTimeout)
				if !strings.Contains(err.Error(), "unavailable") {
					t.Errorf("the caller does not learn why: %v", err)
				}
				for _, err := range cl.KV("none").Scan(within(t, time.Second), partition.KeyRange{}, 1) {
					if err == nil || errors.Is(err, partition.ErrNoSuchTable) {
						t.Errorf("a scan: %v", err)
					}
				}
				c.with(func() { c.age = 0 })
				_, err = cl.Propose(within(t, time.Second), "none", []byte("a"), nil)
				wantCode(t, err, partition.CodeNoSuchTable)
			})
		})
	}
}

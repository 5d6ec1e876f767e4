package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func policyOf(t failing, s string) partition.Policy {
	t.Helper()
	p, err := partition.ParsePolicy(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// inZones are nodes n0, n1, ... in the given zones.
func inZones(zones ...string) []placeItem {
	var all []placeItem
	for i, z := range zones {
		all = append(all, placeItem{Node: partition.NodeID(fmt.Sprintf("n%d", i)), Zone: z})
	}
	return all
}

// LOC-6: a policy that the replicas or the nodes cannot meet is refused, with
// the reason and what would do.
func TestPolicyRefusals(t *testing.T) {
	for _, x := range []struct {
		policy   string
		replicas int
		zones    []string
		why      string // "": it is accepted
		next     string
	}{
		{"majority", 3, []string{"a", "a", "a"}, "", ""},
		{"zones:2", 3, []string{"a", "b", "c"}, "", ""},
		{"zones:2", 3, []string{"a", "a", "b"}, "", ""},
		{"zones:3", 3, []string{"a", "b", "c", "c"}, "", ""},
		{"zones:1", 1, []string{"a"}, "", ""},
		{"all-in-sync", 2, []string{"a", "b"}, "", ""},
		{"zones:4", 5, []string{"a", "b", "c", "a", "b"}, "zones:4 wants every write in 4 zones, but the 5 nodes there lie in 3 zones: a, b, c", "or ask for zones:3"},
		{"zones:2", 3, []string{"", "", ""}, "lie in 1 zone: (no zone)", "pando node --zone"},
		{"zones:3", 2, []string{"a", "b", "c"}, "2 replicas can lie in 2 at most", "ask for 3 replicas or more, or for zones:2"},
		{"zones:2", 1, []string{"a", "b", "c"}, "1 replica can lie in 1 at most", "ask for 2 replicas or more, or for zones:1"},
		{"zones:2", 5, []string{"a", "b", "c"}, "5 replicas are asked for, but only 3 nodes are there", "start more nodes, or ask for fewer replicas"},
		{"majority", 2, []string{"a"}, "only 1 node is there", "start more nodes"},
	} {
		name := fmt.Sprintf("%s of %d on %v", x.policy, x.replicas, x.zones)
		p := policyOf(t, x.policy)
		ask := &askCreate{
			Table: tableBody{Token: "t", Name: "t", Kind: "kv", Replicas: x.replicas, Rule: p.Rule, Zones: p.Zones},
			Nodes: inZones(x.zones...),
		}
		_, err := prepareCreate(ask, 1)
		checkRefusal(t, "create "+name, err, x.why, x.next)
		was := &Table{ID: 1, Name: "t", Kind: "kv", Replicas: 1, Policy: partition.Policy{Rule: partition.Majority}}
		_, failed := prepareAlter(&alterBody{Name: "t", Replicas: x.replicas, Rule: p.Rule, Zones: p.Zones, Nodes: ask.Nodes}, was)
		checkRefusal(t, "alter "+name, asNil(failed), x.why, x.next)
	}
	for _, p := range []partition.Policy{{}, {Rule: 9}, {Rule: partition.Zones}, {Rule: partition.Zones, Zones: 17}} {
		if err := checkSpec(3, p); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func checkRefusal(t *testing.T, what string, err error, why, next string) {
	t.Helper()
	if why == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	var e *partition.Error
	if !errors.As(err, &e) || e.Code != partition.CodeRefused || !strings.Contains(e.Why, why) || !strings.Contains(e.Next, next) {
		t.Errorf("%s: %v, want refused with %q and %q", what, err, why, next)
	}
}

// LOC-6: whatever is accepted can be committed and failed over to by every
// group of the table, with a member in as many zones as the policy wants.
func TestPlacementMeetsPolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := make([]string, rapid.IntRange(1, 9).Draw(t, "nodes"))
		for i := range zones {
			zones[i] = rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "zone")
		}
		p := policyOf(t, rapid.SampledFrom([]string{"majority", "all-in-sync", "zones:1", "zones:2", "zones:3", "zones:4"}).Draw(t, "policy"))
		ask := &askCreate{
			Table: tableBody{Token: "t", Name: "t", Kind: "kv", Replicas: rapid.IntRange(1, 9).Draw(t, "replicas"), Rule: p.Rule, Zones: p.Zones, Splits: [][]byte{{1}, {2}, {3}}},
			Nodes: inZones(zones...),
		}
		possible := ask.Table.Replicas <= len(zones) && (p.Rule != partition.Zones || int(p.Zones) <= min(ask.Table.Replicas, len(zonesOf(ask.Nodes))))
		b, err := prepareCreate(ask, 1)
		if (err == nil) != possible {
			t.Fatalf("possible %t: %v", possible, err)
		}
		if err != nil {
			return
		}
		for i := range 4 {
			m, failed := memberships(b, p, i)
			if failed != nil {
				t.Fatal(failed)
			}
			in := map[string]bool{}
			for _, x := range m.Members {
				in[x.Zone] = true
			}
			if p.Rule == partition.Zones && len(in) < int(p.Zones) {
				t.Fatalf("%s lies in %d zones: %+v", p, len(in), m.Members)
			}
		}
	})
}

// An alteration changes what is wanted of the table and nothing of its groups,
// is counted, and is made once however often it is asked for.
func TestAlterRules(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("m")}, "a", "b", "c")
	create(t, s, "u", 1, nil, "a")
	groups := s.catalog.Groups("t")
	alter := func(token string, replicas int, policy string) result {
		b := &alterBody{Token: token, Name: "t", Replicas: replicas}
		if policy != "" {
			p := policyOf(t, policy)
			b.Rule, b.Zones = p.Rule, p.Zones
		}
		return applied(t, s, kindAlter, b)
	}
	for _, x := range []struct {
		what     string
		token    string
		replicas int
		policy   string
		code     partition.Code
		version  uint64 // of the table after it
		want     string
	}{
		{"the policy", "1", 0, "zones:2", 0, 3, "3 zones:2"},
		{"again", "1", 0, "zones:2", 0, 3, "3 zones:2"},
		{"the replicas", "2", 5, "", 0, 4, "5 zones:2"},
		{"both", "3", 2, "all-in-sync", 0, 5, "2 all-in-sync"},
		{"an old request late", "1", 0, "zones:2", 0, 5, "2 all-in-sync"},
		{"its token for another", "1", 4, "", partition.CodeInvalid, 5, "2 all-in-sync"},
		{"what is so already", "4", 2, "all-in-sync", 0, 5, "2 all-in-sync"},
		{"nothing", "5", 0, "", 0, 5, "2 all-in-sync"},
		{"fewer replicas than zones", "6", 0, "zones:3", partition.CodeRefused, 5, "2 all-in-sync"},
		{"too many replicas", "7", 17, "", partition.CodeInvalid, 5, "2 all-in-sync"},
		{"a negative number", "8", -1, "", partition.CodeInvalid, 5, "2 all-in-sync"},
		{"no token", "", 3, "", partition.CodeInvalid, 5, "2 all-in-sync"},
	} {
		r := alter(x.token, x.replicas, x.policy)
		if partition.CodeOf(asNil(r.err)) != x.code {
			t.Errorf("%s: %v", x.what, r.err)
		}
		tab, _ := s.catalog.Table("t")
		if got := fmt.Sprintf("%d %s", tab.Replicas, tab.Policy); got != x.want || tab.Changed != x.version || s.catalog.Version != x.version {
			t.Errorf("%s: %s at %d, catalog %d; want %s at %d", x.what, got, tab.Changed, s.catalog.Version, x.want, x.version)
		}
	}
	if r := applied(t, s, kindAlter, &alterBody{Token: "n", Name: "none", Replicas: 1}); !errors.Is(r.err, partition.ErrNoSuchTable) {
		t.Error(r.err)
	}
	now := s.catalog.Groups("t")
	for i := range groups {
		if now[i] != groups[i] {
			t.Errorf("%s changed with its table", groups[i].ID)
		}
	}
}

// Over the API: altered, refused with the nodes there are, and the same token
// gets the same answer.
func TestAlterTable(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 1, func(c *Config) { c.Zone = "z-" + string(id) })
	}
	n.leader()
	x := n.nodes["b"]
	ctx := deadline(t, 20*time.Second)
	if _, err := x.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	zones := policyOf(t, "zones:2")
	tab, err := x.AlterTable(ctx, "t", TableChange{Replicas: 3, Policy: &zones, Token: "once"})
	if err != nil || tab.Replicas != 3 || tab.Policy != zones || tab.Changed != 2 {
		t.Fatalf("%+v, %v", tab, err)
	}
	if _, err := x.AlterTable(ctx, "t", TableChange{Replicas: 4}); !errors.Is(err, partition.ErrRefused) {
		t.Fatalf("4 replicas on 3 nodes: %v", err)
	}
	four := policyOf(t, "zones:4")
	if _, err := x.AlterTable(ctx, "t", TableChange{Policy: &four}); !errors.Is(err, partition.ErrRefused) {
		t.Fatalf("4 zones of 3: %v", err)
	}
	n.stop("c")
	again, err := x.AlterTable(ctx, "t", TableChange{Replicas: 3, Policy: &zones, Token: "once"})
	if err != nil || again.Changed != 2 {
		t.Fatalf("the same again, a node less: %+v, %v", again, err)
	}
	if _, err := x.AlterTable(ctx, "none", TableChange{Replicas: 1}); !errors.Is(err, partition.ErrNoSuchTable) {
		t.Fatal(err)
	}
}

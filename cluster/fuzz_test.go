package cluster

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/serf/serf"

	"pando.dev/pando/cluster/internal/stamp"
	"pando.dev/pando/partition"
)

// FuzzMember: whatever tags and names come by gossip, a member is one that
// everybody else can work with, or is kept out.
func FuzzMember(f *testing.F) {
	f.Add("n1", "test", "7", "127.0.0.1:1", "a", "3", "")
	f.Add("", "test", "-1", strings.Repeat("x", 300), strings.Repeat("z", 100), "99999999999999999999", "s\x00")
	f.Add("n1/../x", "", "0x10", "[::1]:1", "\xff\xfe", "1e9", "m7")
	g := &Gossip{cfg: GossipConfig{Node: "self", Boot: 5, Cluster: "test"}, tags: map[string]string{TagControlGroup: "9"}, known: map[partition.NodeID]bool{}}
	f.Fuzz(func(t *testing.T, name, cluster, boot, addr, zone, expect, mode string) {
		if name == string(g.cfg.Node) {
			return // is about the duplicate, see TestDuplicateID
		}
		m := &serf.Member{Name: name, Addr: net.IPv4(127, 0, 0, 1), Port: 1, Status: serf.StatusAlive, Tags: map[string]string{
			tagCluster: cluster, tagBoot: boot, tagLink: addr, tagHTTP: addr, tagZone: zone, tagExpect: expect, TagMode: mode, TagControlGroup: "9",
		}}
		err := g.check(m)
		if err != nil && err.Code != partition.CodeRefused && err.Code != partition.CodeTooLarge && err.Code != partition.CodeInvalid {
			t.Fatalf("%+v: %v", m, err)
		}
		if err != nil {
			return
		}
		n := nodeOf(m)
		if ValidateNodeID(n.ID) != nil || len(n.Zone) > partition.MaxZoneBytes || len(n.Link) > maxAddressBytes || len(n.HTTP) > maxAddressBytes || n.Expect < 0 || n.Expect > 1<<10 {
			t.Fatalf("%+v became a member", n)
		}
	})
}

// FuzzPeers: the files of addresses and of the key, whatever is in them.
func FuzzPeers(f *testing.F) {
	f.Add([]byte("127.0.0.1:1\nhost:2\n"))
	f.Add([]byte("# none\n\n  [::1]:7 \nnonsense\n:\n"))
	f.Add([]byte(strings.Repeat("a:1\n", 200)))
	f.Add([]byte(strings.Repeat("0f", KeyBytes)))
	f.Add([]byte(strings.Repeat("x", KeyBytes)))
	dir := f.TempDir()
	path := filepath.Join(dir, "join")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := stamp.Write(filepath.Join(dir, peersFile), peersFormat, b); err != nil {
			t.Skip(err)
		}
		all, err := RememberedPeers(dir)
		if err != nil || len(all) > MaxJoinAddresses {
			t.Fatalf("%d addresses, %v", len(all), err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		lines, _ := resolveProviders([]string{fileProvider + path})
		for _, a := range append(all, lines...) {
			if checkAddress(a) != nil {
				t.Fatalf("%q is an address", a)
			}
		}
		if len(lines) > MaxJoinAddresses {
			t.Fatalf("%d addresses", len(lines))
		}
		key, err := ReadKey(path)
		var typed *partition.Error
		if (err == nil) != (len(key) == KeyBytes) || err != nil && !errors.As(err, &typed) {
			t.Fatalf("a key of %d bytes, %v", len(key), err)
		}
	})
}

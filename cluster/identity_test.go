package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/cluster/internal/stamp"
	"pando.dev/pando/partition"
)

// opened opens and closes, and returns what it saw.
func opened(t *testing.T, dir string, o IdentityOptions) (Identity, error) {
	t.Helper()
	id, err := OpenIdentity(dir, o)
	if err != nil {
		return Identity{}, err
	}
	if err := id.Close(); err != nil {
		t.Fatal(err)
	}
	return Identity{Node: id.Node, Cluster: id.Cluster, Boot: id.Boot}, nil
}

func TestIdentityIsMintedOnceAndBootsCount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	o := IdentityOptions{Cluster: "c"}
	first, err := opened(t, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^n-[0-9a-z]{10}$`).MatchString(string(first.Node)) || first.Boot == 0 || ValidateNodeID(first.Node) != nil {
		t.Fatalf("%+v", first)
	}
	for boot := first.Boot + 1; boot < first.Boot+4; boot++ {
		again, err := opened(t, dir, o)
		if err != nil || again.Node != first.Node || again.Boot != boot {
			t.Fatalf("%+v, %v", again, err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("data directory: %v, %v", info.Mode(), err)
	}
	other, err := opened(t, t.TempDir(), o)
	if err != nil || other.Node == first.Node {
		t.Fatalf("two nodes share an id: %+v, %v", other, err)
	}
}

func TestFixedIdentity(t *testing.T) {
	dir := t.TempDir()
	first, err := opened(t, dir, IdentityOptions{Cluster: "c", Node: "node.1-a"})
	if err != nil || first.Node != "node.1-a" {
		t.Fatalf("%+v, %v", first, err)
	}
	if id, err := opened(t, dir, IdentityOptions{Cluster: "c"}); err != nil || id.Node != "node.1-a" || id.Boot != first.Boot+1 {
		t.Fatalf("%+v, %v", id, err)
	}
	_, err = opened(t, dir, IdentityOptions{Cluster: "c", Node: "node.2"})
	if !errors.Is(err, partition.ErrRefused) || !strings.Contains(err.Error(), "data directory of another node") {
		t.Fatal(err)
	}
	_, err = opened(t, dir, IdentityOptions{Cluster: "d"})
	if !errors.Is(err, partition.ErrRefused) || !strings.Contains(err.Error(), `cluster "c"`) {
		t.Fatal(err)
	}
	if id, err := opened(t, dir, IdentityOptions{Cluster: "c"}); err != nil || id.Boot != first.Boot+2 {
		t.Fatalf("a refused start counted: %+v, %v", id, err)
	}
}

// A node that lost its disk and comes back under the same id has a lower boot
// than all that others may have seen of it.
func TestLaterIdentityHasLowerBoots(t *testing.T) {
	now := time.Now()
	if old, lost := bootsBefore(now), bootsBefore(now.Add(100*time.Millisecond)); lost+1<<16 > old || old >= 1<<53 {
		t.Errorf("first boots: %d, then %d", old, lost)
	}
}

// A command may mint the id before the first start; that counts no boot.
func TestMintOnly(t *testing.T) {
	dir := t.TempDir()
	minted, err := opened(t, dir, IdentityOptions{MintOnly: true})
	if err != nil || minted.Node == "" || minted.Cluster != "" {
		t.Fatalf("%+v, %v", minted, err)
	}
	if again, err := opened(t, dir, IdentityOptions{MintOnly: true}); err != nil || again != minted {
		t.Fatalf("%+v, %v", again, err)
	}
	if id, err := opened(t, dir, IdentityOptions{Cluster: "c"}); err != nil || id.Node != minted.Node || id.Boot != minted.Boot+1 || id.Cluster != "c" {
		t.Fatalf("%+v, %v", id, err)
	}
	if _, err := opened(t, dir, IdentityOptions{Cluster: "d"}); !errors.Is(err, partition.ErrRefused) {
		t.Fatal(err)
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	id, err := OpenIdentity(dir, IdentityOptions{Cluster: "c"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = opened(t, dir, IdentityOptions{Cluster: "c"})
	if !errors.Is(err, partition.ErrRefused) || !strings.Contains(err.Error(), fmt.Sprintf("in use by pid %d", os.Getpid())) {
		t.Fatal(err)
	}
	if err := id.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, dir, IdentityOptions{Cluster: "c"}); err != nil {
		t.Fatal(err)
	}
}

func TestBadIdentityOptions(t *testing.T) {
	for what, o := range map[string]IdentityOptions{
		"no cluster": {}, "cluster with a slash": {Cluster: "a/b"}, "long cluster": {Cluster: strings.Repeat("c", MaxClusterNameBytes+1)},
		"node with a space": {Cluster: "c", Node: "a b"}, "node with a dash first": {Cluster: "c", Node: "-a"},
		"long node": {Cluster: "c", Node: partition.NodeID(strings.Repeat("n", partition.MaxNodeIDBytes+1))},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if _, err := opened(t, dir, o); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: the directory was made", what)
		}
	}
}

// Damage in one copy of NODE is survived, in both it is told; a newer format is
// not touched.
func TestDamagedNodeFile(t *testing.T) {
	dir := t.TempDir()
	o := IdentityOptions{Cluster: "c", Node: "a"}
	first, err := opened(t, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, nodeFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x20
		write(b)
		if id, err := opened(t, dir, o); err != nil || id.Node != "a" || id.Boot != first.Boot+1 {
			t.Fatalf("byte %d damaged: %+v, %v", i, id, err)
		}
	}
	both := bytes.Clone(good)
	both[len(both)/2-1] ^= 1
	both[len(both)-1] ^= 1
	for what, b := range map[string][]byte{"both copies": both, "empty": {}, "cut": good[:len(good)/2-1], "noise": bytes.Repeat([]byte{7}, 100)} {
		write(b)
		if _, err := opened(t, dir, o); !errors.Is(err, partition.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, b) {
			t.Errorf("%s: the evidence was overwritten", what)
		}
	}
	if err := stamp.Write(path, nodeFormat+1, []byte("of the future")); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, dir, o); !errors.Is(err, partition.ErrNewerFormat) {
		t.Error(err)
	}
	// Whole, but not what this program writes.
	for what, b := range map[string][]byte{"short": {1, 2}, "no node": append(make([]byte, 8), 0, 1, 'c'), "more": append(make([]byte, 8), 1, 'a', 1, 'c', 9), "bad name": append(make([]byte, 8), 1, '/', 1, 'c')} {
		if err := stamp.Write(path, nodeFormat, b); err != nil {
			t.Fatal(err)
		}
		if _, err := opened(t, dir, o); !errors.Is(err, partition.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A link in the place of a file of ours is not followed.
func TestLinksAreNotFollowed(t *testing.T) {
	for _, name := range []string{lockFile, nodeFile} {
		dir := t.TempDir()
		target := filepath.Join(t.TempDir(), "target")
		if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := opened(t, dir, IdentityOptions{Cluster: "c"}); err == nil {
			t.Errorf("%s: the link was followed", name)
		}
		if b, _ := os.ReadFile(target); string(b) != "precious" {
			t.Errorf("%s: its target was changed to %q", name, b)
		}
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	file := func(content string, mode os.FileMode) string {
		path := filepath.Join(dir, "key")
		os.Remove(path)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hex := strings.Repeat("0a", KeyBytes)
	want := bytes.Repeat([]byte{10}, KeyBytes)
	for _, good := range []string{hex, hex + "\n", string(want)} {
		if key, err := ReadKey(file(good, 0o600)); err != nil || !bytes.Equal(key, want) {
			t.Errorf("%q: %x, %v", good, key, err)
		}
	}
	for what, x := range map[string]struct {
		content string
		mode    os.FileMode
		code    partition.Code
	}{
		"readable by others": {hex, 0o644, partition.CodeRefused},
		"short":              {"0a0b", 0o600, partition.CodeInvalid},
		"not hexadecimal":    {strings.Repeat("xy", KeyBytes), 0o600, partition.CodeInvalid},
		"long":               {hex + hex, 0o600, partition.CodeInvalid},
		"empty":              {"", 0o600, partition.CodeInvalid},
	} {
		_, err := ReadKey(file(x.content, x.mode))
		if partition.CodeOf(err) != x.code {
			t.Errorf("%s: %v, want %v", what, err, x.code)
		}
		if err != nil && len(x.content) > 3 && strings.Contains(err.Error(), x.content) {
			t.Errorf("%s: the error shows the key", what)
		}
	}
	if _, err := ReadKey(filepath.Join(dir, "nowhere")); !os.IsNotExist(errors.Unwrap(err)) {
		t.Error(err)
	}
}

func TestRememberedPeers(t *testing.T) {
	dir := t.TempDir()
	if peers, err := RememberedPeers(dir); err != nil || peers != nil {
		t.Fatal(peers, err)
	}
	var many []string
	for i := range 3 * MaxJoinAddresses {
		many = append(many, fmt.Sprintf("127.0.0.1:%d", i+1))
	}
	if err := rememberPeers(dir, many); err != nil {
		t.Fatal(err)
	}
	peers, err := RememberedPeers(dir)
	if err != nil || len(peers) != MaxJoinAddresses {
		t.Fatal(len(peers), err)
	}
	// What is on the disk is not trusted.
	if err := stamp.Write(filepath.Join(dir, peersFile), peersFormat, []byte("nonsense\n:1\n127.0.0.1:1\n")); err != nil {
		t.Fatal(err)
	}
	if peers, err := RememberedPeers(dir); err != nil || len(peers) != 1 {
		t.Fatal(peers, err)
	}
}

func FuzzIdentity(f *testing.F) {
	id := Identity{Node: "a", Cluster: "c", Boot: 7}
	f.Add(id.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Identity
		if err := x.decode("NODE", b); err != nil {
			if !errors.Is(err, partition.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(x.encode(), b) {
			t.Fatalf("%x reads as %+v, which is %x", b, x, x.encode())
		}
	})
}

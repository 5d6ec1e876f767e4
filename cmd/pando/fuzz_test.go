package main

import (
	"testing"

	"pando.dev/pando/partition"
)

// FuzzArguments: what an operator types for a key, a group, a policy, a plan or
// a name is taken as it is meant or refused with words.
func FuzzArguments(f *testing.F) {
	f.Add("hex", "00ff")
	f.Add("base64", "AP8=")
	f.Add("text", "key")
	f.Add("utf", "g17")
	f.Add("hex", "2 of 3 zones")
	f.Fuzz(func(t *testing.T, encoding, s string) {
		if key, err := decodeKey(encoding, s); err != nil && (key != nil && len(key) > len(s) || err.Error() == "") {
			t.Fatalf("%q as %q: %q, %v", s, encoding, key, err)
		}
		if g, err := partition.ParseGroupID(s); err == nil {
			if again, err := partition.ParseGroupID(g.String()); err != nil || again != g {
				t.Fatalf("%q is %s", s, g)
			}
		}
	})
}

package partition

import "testing"

// What String returns is read back, and nothing else is a policy.
func TestParsePolicy(t *testing.T) {
	for s, want := range map[string]Policy{
		"majority": {Rule: Majority}, "all-in-sync": {Rule: AllInSync},
		"zones:1": {Rule: Zones, Zones: 1}, "zones:2": {Rule: Zones, Zones: 2}, "zones:16": {Rule: Zones, Zones: 16},
	} {
		got, err := ParsePolicy(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: %v, %v", s, got, err)
		}
		if err := got.validate(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "Majority", "majority ", "quorum", "zones", "zones:", "zones:0", "zones:-1", "zones:17", "zones:02", "zones:+2",
		"zones:2 ", "zones:two", "zones:99999999999999999999", "all", "all-in-sync:2", "rule(9)",
	} {
		p, err := ParsePolicy(s)
		if CodeOf(err) != CodeInvalid || p != (Policy{}) {
			t.Errorf("%q: %v, %v", s, p, err)
			continue
		}
		if e := err.(*Error); e.Next == "" || e.Why == "" {
			t.Errorf("%q: %v does not say what would do", s, err)
		}
	}
}

// FuzzParsePolicy: whatever is read says the same again.
func FuzzParsePolicy(f *testing.F) {
	f.Add("zones:3")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePolicy(s); err == nil && p.String() != s {
			t.Fatalf("%q reads as %s", s, p)
		}
	})
}

package kv

import (
	"testing"

	"pando.dev/pando/partition"
)

// What a command touches is told from its bytes alone, and is what its batch says.
func TestSpan(t *testing.T) {
	k := func(s string) []byte { return []byte(s) }
	for want, fill := range map[string]func(b *Batch){
		`["c","c\x00")`:         func(b *Batch) { b.Put(k("c"), k("v")) },
		`["b","x\x00")`:         func(b *Batch) { b.Delete(k("x")); b.If(IfAbsent(k("b"))) },
		`["b","m")`:             func(b *Batch) { b.Put(k("c"), k("v")); b.DeleteRange(partition.KeyRange{Lo: k("b"), Hi: k("m")}) },
		`["b",)`:                func(b *Batch) { b.DeleteRange(partition.KeyRange{Lo: k("b")}); b.Put(k("c"), k("v")) },
		`[,"m")`:                func(b *Batch) { b.DeleteRange(partition.KeyRange{Hi: k("m")}) },
		"[\"\\x00\",\"\\x00\")": func(b *Batch) {},
	} {
		var b Batch
		fill(&b)
		cmd, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := (&table{}).Span(cmd)
		if err != nil || got.String() != want || b.Len() > 0 && b.Span().String() != want {
			t.Errorf("%s and %s, not %s: %v", got, b.Span(), want, err)
		}
	}
	if _, err := (&table{}).Span([]byte{99}); err == nil {
		t.Error("what is no command touches something")
	}
}

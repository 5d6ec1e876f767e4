package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition/kv"
)

// books is what a table holds, for who only scans it.
type books map[string]string

func (b books) get(context.Context, string, client.Level) (string, error) { return "", nil }
func (b books) put(context.Context, string, string) error                 { return nil }
func (b books) swap(context.Context, string, string, string) (bool, uint64, error) {
	return false, 0, nil
}

func (b books) scan(_ context.Context, prefix string) (map[string]string, []string, error) {
	found := map[string]string{}
	for k, v := range b {
		if strings.HasPrefix(k, prefix) {
			found[k] = v
		}
	}
	return found, nil, nil
}

// TestBalanceBooks wants lost, doubled and resurrected transfers to be found.
func TestBalanceBooks(t *testing.T) {
	for _, x := range []struct {
		name, wrong string // what is said, or nothing
		do          func(b *bank, held books)
	}{
		{"as it should be", "", func(*bank, books) {}},
		{"an acknowledged transfer is lost", "it is lost", func(b *bank, held books) {
			delete(held, b.receipt("1"))
			held[b.account(0)], held[b.account(1)] = money(bankStart, "opening"), money(bankStart, "opening")
		}},
		{"executed twice", "lost or executed twice", func(b *bank, held books) {
			held[b.account(0)], held[b.account(1)] = money(bankStart-20, "1"), money(bankStart+20, "1")
		}},
		{"half of it is there", "lost or executed twice", func(b *bank, held books) { held[b.account(1)] = money(bankStart, "opening") }},
		{"a refused one was executed", "it was executed", func(b *bank, _ books) { b.receipts["1"] = "no" }},
		{"an unknown one was executed", "", func(b *bank, _ books) { b.receipts["1"] = "unknown" }},
	} {
		b := &bank{prefix: "x/", receipts: map[string]string{"1": "ok"}, floor: map[string]kv.Version{}}
		held := books{b.receipt("1"): fmt.Sprintf("%s %s %d", b.account(0), b.account(1), 10)}
		for i := range bankAccounts {
			held[b.account(i)] = money(bankStart, "opening")
		}
		held[b.account(0)], held[b.account(1)] = money(bankStart-10, "1"), money(bankStart+10, "1")
		x.do(b, held)
		_, wrong, err := b.balanceBooks(t.Context(), held)
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(wrong, "; "); (said == "") != (x.wrong == "") || !strings.Contains(said, x.wrong) {
			t.Errorf("%s: it says %q, wanted is %q", x.name, said, x.wrong)
		}
	}
}

// TestFreshness wants an answer to be found that is older than what was known.
func TestFreshness(t *testing.T) {
	b := &bank{}
	b.fresh("a teller", "k", 7, 7)
	b.fresh("a teller", "k", 9, 7)
	if len(b.wrong) > 0 {
		t.Errorf("%q", b.wrong)
	}
	b.fresh("a teller", "k", 6, 7)
	if len(b.wrong) != 1 {
		t.Errorf("%q", b.wrong)
	}
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

const (
	bankAccounts = 12
	bankStart    = 1000 // of each account
	// bankRest is the mean rest of a teller or auditor between two operations.
	bankRest = 20 * time.Millisecond
)

// bank is accounts in one partition. Tellers transfer between two of them by one
// conditional batch, which leaves a receipt as well; auditors read all at once
// and want the sum to be what it was, and no account to be older than what had
// been acknowledged before they asked.
//
// At the end every acknowledged transfer has left its receipt, no refused one
// has, and the accounts are what the receipts make of them: so none was lost or
// executed twice.
type bank struct {
	prefix string // of all keys
	stores []*table
	wait   time.Duration // for one operation

	stopped atomic.Bool
	running sync.WaitGroup

	mu       sync.Mutex
	receipts map[string]string // outcome by the transfer's number: ok, no, unknown
	floor    map[string]kv.Version
	audits   int
	wrong    []string
	errs     map[string]int
}

// openBank puts the accounts into a table and lets tellers and auditors begin.
func (c *cluster) openBank(ctx context.Context, name, prefix string, tellers, auditors int) (*bank, error) {
	b := &bank{prefix: prefix, wait: opWait, receipts: map[string]string{}, floor: map[string]kv.Version{}, errs: map[string]int{}}
	for range tellers + auditors {
		s, err := c.openOn(ctx, name, c.links())
		if err != nil {
			b.close()
			return nil, err
		}
		b.stores = append(b.stores, s)
	}
	for i := range bankAccounts {
		v, err := b.stores[0].kv.Put(ctx, []byte(b.account(i)), []byte(money(bankStart, "opening")))
		if err != nil {
			b.close()
			return nil, fmt.Errorf("open an account: %w", err)
		}
		b.floor[b.account(i)] = v
	}
	for i, s := range b.stores {
		rng := rand.New(rand.NewPCG(c.t.opts.seed, 5000+uint64(i)))
		b.running.Go(func() {
			for n := 0; !b.stopped.Load(); n++ {
				if i < tellers {
					b.transfer(s.kv, fmt.Sprintf("%d-%d", i, n), rng)
				} else {
					b.audit(s.kv, rng)
				}
				rest(bankRest, rng)
			}
		})
	}
	return b, nil
}

func (b *bank) account(i int) string       { return fmt.Sprintf("%sacct/%02d", b.prefix, i) }
func (b *bank) receipt(name string) string { return b.prefix + "receipt/" + name }

// money is the value of an account: its balance, and who wrote it, so that no
// value is written twice.
func money(balance int, by string) string { return fmt.Sprintf("%d %s", balance, by) }

func balance(value []byte) (int, error) {
	number, _, _ := strings.Cut(string(value), " ")
	return strconv.Atoi(number)
}

// floors copies what an answer that is asked for now must show at least.
func (b *bank) floors() map[string]kv.Version {
	b.mu.Lock()
	defer b.mu.Unlock()
	floors := map[string]kv.Version{}
	for k, v := range b.floor { // a copy
		floors[k] = v
	}
	return floors
}

func (b *bank) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

func (b *bank) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs[partition.CodeOf(err).String()]++
}

// draft is a transfer before it is sent: what it rests on.
type draft struct {
	from, to           string
	fromMoney, toMoney kv.GetAnswer
	amount             int
}

// transfer moves an amount from one account to another.
func (b *bank) transfer(t client.KV, name string, rng *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), b.wait)
	defer cancel()
	from := rng.IntN(bankAccounts)
	to := (from + 1 + rng.IntN(bankAccounts-1)) % bankAccounts
	d := draft{from: b.account(from), to: b.account(to), amount: 1 + rng.IntN(100)}
	for _, side := range []struct {
		key  string
		into *kv.GetAnswer
	}{{d.from, &d.fromMoney}, {d.to, &d.toMoney}} {
		floor := b.floors()[side.key]
		a, err := t.Get(ctx, []byte(side.key))
		if err != nil {
			b.failed(err)
			return
		}
		b.fresh("a teller", side.key, a.Version, floor)
		*side.into = a
	}
	batch, err := d.batch(name, b.receipt(name), rng.IntN(2) == 0)
	if err != nil {
		b.complain("an account cannot be read: %v", err)
		return
	}
	r, err := t.Batch(ctx, batch)
	b.ended(name, d, r, err)
}

// batch is the transfer as one command.
func (d *draft) batch(name, receipt string, byValue bool) (*kv.Batch, error) {
	from, err := balance(d.fromMoney.Value)
	if err != nil {
		return nil, err
	}
	to, err := balance(d.toMoney.Value)
	if err != nil {
		return nil, err
	}
	var batch kv.Batch
	if byValue {
		batch.If(kv.IfValue([]byte(d.from), d.fromMoney.Value))
		batch.If(kv.IfValue([]byte(d.to), d.toMoney.Value))
	} else {
		batch.If(kv.IfVersion([]byte(d.from), d.fromMoney.Version))
		batch.If(kv.IfVersion([]byte(d.to), d.toMoney.Version))
	}
	batch.Put([]byte(d.from), []byte(money(from-d.amount, name)))
	batch.Put([]byte(d.to), []byte(money(to+d.amount, name)))
	batch.Put([]byte(receipt), fmt.Appendf(nil, "%s %s %d", d.from, d.to, d.amount))
	return &batch, nil
}

// ended notes how a transfer ended.
func (b *bank) ended(name string, d draft, r kv.Result, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil && r.Applied:
		b.receipts[name] = "ok"
		b.floor[d.from] = max(b.floor[d.from], r.Version)
		b.floor[d.to] = max(b.floor[d.to], r.Version)
	case err == nil, nothingDone(err):
		b.receipts[name] = "no"
	default:
		b.receipts[name] = "unknown"
	}
	if err != nil {
		b.errs[partition.CodeOf(err).String()]++
	}
}

// fresh wants an answer not to be older than what was acknowledged before it was
// asked for.
func (b *bank) fresh(who, key string, got, floor kv.Version) {
	if got < floor {
		b.complain("%s read version %d of %s after version %d had been acknowledged: a stale read", who, got, key, floor)
	}
}

// audit reads all accounts in one state and adds them up.
func (b *bank) audit(t client.KV, rng *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), b.wait)
	defer cancel()
	o := client.ReadOptions{Level: client.Lease}
	if rng.IntN(4) == 0 {
		o.Level = client.Quorum
	}
	pages := 0
	o.Answered = func(client.Result) { pages++ }
	floors := b.floors()
	var pairs []kv.Pair
	for p, err := range t.With(o).Scan(ctx, prefixRange(b.prefix+"acct/"), 0) {
		if err != nil {
			b.failed(err)
			return
		}
		pairs = append(pairs, p)
	}
	if pages != 1 {
		return // not one state
	}
	sum := 0
	for _, p := range pairs {
		n, err := balance(p.Value)
		if err != nil {
			b.complain("account %s holds %q", p.Key, p.Value)
			return
		}
		sum += n
		b.fresh("an auditor, at "+o.Level.String()+",", string(p.Key), p.Version, floors[string(p.Key)])
	}
	if len(pairs) != bankAccounts || sum != bankAccounts*bankStart {
		b.complain("%d accounts add up to %d at %s, they are %d with %d", len(pairs), sum, o.Level, bankAccounts, bankAccounts*bankStart)
	}
	b.mu.Lock()
	b.audits++
	b.mu.Unlock()
}

// prefixRange is all keys that begin with a prefix, which is not empty.
func prefixRange(prefix string) partition.KeyRange {
	end := []byte(prefix)
	end[len(end)-1]++
	return partition.KeyRange{Lo: []byte(prefix), Hi: end}
}

// acknowledged is how many transfers were.
func (b *bank) acknowledged() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, outcome := range b.receipts { // a sum
		if outcome == "ok" {
			n++
		}
	}
	return n
}

func (b *bank) stop() {
	b.stopped.Store(true)
	b.running.Wait()
}

// close stops the bank and disconnects its clients.
func (b *bank) close() {
	b.stop()
	for _, s := range b.stores {
		s.close()
	}
	b.stores = nil
}

// balanceBooks judges the bank after it has stopped.
func (b *bank) balanceBooks(ctx context.Context, s scanner) (report string, wrong []string, err error) {
	held, _, err := s.scan(ctx, b.prefix)
	if err != nil {
		return "", nil, fmt.Errorf("read the bank back: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	want := map[string]int{}
	for i := range bankAccounts {
		want[b.account(i)] = bankStart
	}
	ok, unknown := 0, 0
	for name, outcome := range b.receipts { // each on its own
		receipt, there := held[b.receipt(name)]
		switch {
		case outcome == "ok" && !there:
			b.wrong = append(b.wrong, fmt.Sprintf("transfer %s was acknowledged and left no receipt: it is lost", name))
		case outcome == "no" && there:
			b.wrong = append(b.wrong, fmt.Sprintf("transfer %s was refused and left a receipt: it was executed", name))
		case outcome == "ok":
			ok++
		case outcome == "unknown":
			unknown++
		}
		var from, to string
		var amount int
		if _, err := fmt.Sscanf(receipt, "%s %s %d", &from, &to, &amount); there && err != nil {
			b.wrong = append(b.wrong, fmt.Sprintf("receipt %s holds %q", name, receipt))
		}
		if there {
			want[from] -= amount
			want[to] += amount
		}
	}
	for account, n := range want { // each on its own
		if got, err := balance([]byte(held[account])); err != nil || got != n {
			b.wrong = append(b.wrong, fmt.Sprintf("account %s holds %q, the receipts make it %d: a transfer was lost or executed twice", account, held[account], n))
		}
	}
	report = fmt.Sprintf("%d transfers acknowledged, %d unknown, %d audits; errors: %v", ok, unknown, b.audits, b.errs)
	return report, b.wrong, nil
}

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// KV is a table of the built-in key-value kind. It is a value: copy it freely.
// Keys, values and what a batch may hold are limited as package kv says; what
// exceeds a limit is refused before it is sent.
type KV struct {
	c     *Client
	table string
	opts  ReadOptions
}

// KV returns the key-value table of that name, whose reads have level Lease.
// Whether there is such a table is found out by its operations.
func (c *Client) KV(table string) KV { return KV{c: c, table: table} }

// At returns the same table with another level for its reads. With level Session
// it gets a Seen of its own if it has none: whoever uses this value or copies of
// it reads what was written through them, and never an older state than before.
func (t KV) At(l Level) KV {
	t.opts.Level = l
	return t.With(t.opts)
}

// With returns the same table with other options for its reads. Its writes note
// what they wrote in Seen; level Session gets one as with At.
func (t KV) With(o ReadOptions) KV {
	if o.Level == Session && o.Seen == nil {
		o.Seen = new(Seen)
	}
	t.opts = o
	return t
}

// Seen is what the table's reads and writes note what they saw in, nil if they
// do not.
func (t KV) Seen() *Seen { return t.opts.Seen }

// Get returns the value of a key. That the key is absent is not an error: see
// Found in the answer.
func (t KV) Get(ctx context.Context, key []byte) (kv.GetAnswer, error) {
	q, err := kv.Get(key)
	if err != nil {
		return kv.GetAnswer{}, err
	}
	r, err := t.c.Read(ctx, t.table, key, q, t.opts)
	if err != nil {
		return kv.GetAnswer{}, err
	}
	return kv.ParseGet(r.Body)
}

// Put writes a key and returns the version of what it wrote.
func (t KV) Put(ctx context.Context, key, value []byte) (kv.Version, error) {
	cmd, err := kv.Put(key, value)
	if err != nil {
		return 0, err
	}
	r, err := t.propose(ctx, point(key), cmd)
	return r.Version, err
}

// Delete removes a key, which need not be there.
func (t KV) Delete(ctx context.Context, key []byte) error {
	cmd, err := kv.Delete(key)
	if err != nil {
		return err
	}
	_, err = t.propose(ctx, point(key), cmd)
	return err
}

// CompareAndSet writes the condition's key if the condition holds. That it does
// not hold is not an error: see Applied in the result.
func (t KV) CompareAndSet(ctx context.Context, cond kv.Condition, value []byte) (kv.Result, error) {
	cmd, err := kv.CompareAndSet(cond, value)
	if err != nil {
		return kv.Result{}, err
	}
	return t.propose(ctx, spanOf(cond), cmd)
}

// CompareAndDelete removes the condition's key if the condition holds.
func (t KV) CompareAndDelete(ctx context.Context, cond kv.Condition) (kv.Result, error) {
	cmd, err := kv.CompareAndDelete(cond)
	if err != nil {
		return kv.Result{}, err
	}
	return t.propose(ctx, spanOf(cond), cmd)
}

// Batch executes a batch as a whole. It is atomic because one partition
// executes it, so all its keys must be in one: otherwise nothing is done, and
// the error, of CodeInvalid, says where the table is divided. A later split may
// divide keys that are together now; whoever must write keys together should
// give them one prefix and split elsewhere.
func (t KV) Batch(ctx context.Context, b *kv.Batch) (kv.Result, error) {
	if b.Len() == 0 {
		return kv.Result{}, partition.Errorf(partition.CodeInvalid, "the batch is empty")
	}
	cmd, err := b.Encode()
	if err != nil {
		return kv.Result{}, err
	}
	return t.propose(ctx, b.Span(), cmd)
}

func spanOf(c kv.Condition) partition.KeyRange {
	var b kv.Batch
	b.If(c)
	return b.Span()
}

// point is the range of one key.
func point(key []byte) partition.KeyRange {
	return partition.KeyRange{Lo: key, Hi: append(bytes.Clone(key), 0)}
}

// writing are the options of a command: what it wrote is noted.
func (t KV) writing() ReadOptions {
	return ReadOptions{Seen: t.opts.Seen, Answered: t.opts.Answered}
}

func (t KV) propose(ctx context.Context, span partition.KeyRange, cmd []byte) (kv.Result, error) {
	r, err := t.c.do(ctx, t.table, Request{Op: OpPropose, Key: span.Lo, Body: cmd}, t.writing(), &span)
	if err != nil {
		return kv.Result{}, err
	}
	return kv.ParseResult(r.Body)
}

// Scan yields the pairs of a range in order, at most limit of them unless limit
// is 0. The pairs are the caller's to keep. An error comes last.
//
// The scan fetches page after page. Each page is one consistent state of one
// partition, at the table's level; the scan as a whole is not: a write that
// happens while it runs is seen if it lies ahead, and not if it lies behind, so
// two writes may be seen in another order than they were made.
func (t KV) Scan(ctx context.Context, r partition.KeyRange, limit int) iter.Seq2[kv.Pair, error] {
	return t.ScanQuery(ctx, kv.ScanQuery{Range: r, Limit: limit})
}

// ScanQuery is Scan with all that a query can ask for. Its Limit bounds the
// whole scan, its Bytes one page.
func (t KV) ScanQuery(ctx context.Context, q kv.ScanQuery) iter.Seq2[kv.Pair, error] {
	return func(yield func(kv.Pair, error) bool) {
		rest := q // its Limit is how many pairs are left to be had
		for !rest.Range.Empty() {
			pairs, next, err := t.page(ctx, rest)
			if err != nil {
				yield(kv.Pair{}, fmt.Errorf("scan %s of table %q: %w", rest.Range, t.table, err))
				return
			}
			for _, p := range pairs {
				if !yield(p, nil) {
					return
				}
			}
			if next == nil || q.Limit > 0 && len(pairs) >= rest.Limit {
				return
			}
			rest = *next
			if q.Limit > 0 {
				rest.Limit -= len(pairs)
			}
		}
	}
}

// page fetches the pairs of one partition that come first; next is the query
// for those behind them, nil at the end.
func (t KV) page(ctx context.Context, q kv.ScanQuery) (pairs []kv.Pair, next *kv.ScanQuery, err error) {
	a, part, err := t.eachPartition(ctx, q.Range, q.Back, func(part partition.KeyRange) (Result, error) {
		clipped := q
		clipped.Range = part
		clipped.Limit = min(q.Limit, kv.MaxScanPairs)
		body, err := clipped.Encode()
		if err != nil {
			return Result{}, err
		}
		return t.c.do(ctx, t.table, t.opts.into(Request{Op: OpRead, Key: part.Lo, Body: body}), t.opts, &part)
	})
	if err != nil {
		return nil, nil, err
	}
	answer, err := kv.ParseScan(a.Body)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case answer.More && len(answer.Pairs) == 0:
		return nil, nil, partition.Errorf(partition.CodeCorrupt, "a page of no pairs that is not the last")
	case answer.More:
		rest := q.Rest(answer)
		next = &rest
	case q.Back && bytes.Compare(part.Lo, q.Range.Lo) > 0:
		rest := q
		rest.Range.Hi = part.Lo
		next = &rest
	case !q.Back && !bytes.Equal(part.Hi, q.Range.Hi):
		rest := q
		rest.Range.Lo = part.Hi
		next = &rest
	}
	return answer.Pairs, next, nil
}

// DeleteRange removes every key of a range. Each partition does its part as a
// whole; the parts are done one after the other in key order, and after an
// error those from the key on that it names may not have been done.
func (t KV) DeleteRange(ctx context.Context, r partition.KeyRange) error {
	for !r.Empty() {
		a, part, err := t.eachPartition(ctx, r, false, func(part partition.KeyRange) (Result, error) {
			cmd, err := kv.DeleteRange(part)
			if err != nil {
				return Result{}, err
			}
			return t.c.do(ctx, t.table, Request{Op: OpPropose, Key: part.Lo, Body: cmd}, t.writing(), &part)
		})
		if err == nil {
			_, err = kv.ParseResult(a.Body)
		}
		if err != nil {
			return fmt.Errorf("delete range %s of table %q: %w", r, t.table, err)
		}
		if bytes.Equal(part.Hi, r.Hi) {
			return nil
		}
		r.Lo = part.Hi
	}
	return nil
}

// eachPartition asks the partition that holds the first keys of the range (the
// last ones, if back) for its part of it, once more with other parts when the
// partition was divided meanwhile. It returns the part that was asked for.
func (t KV) eachPartition(ctx context.Context, r partition.KeyRange, back bool, ask func(part partition.KeyRange) (Result, error)) (Result, partition.KeyRange, error) {
	for began := time.Now(); ; {
		routes := t.c.routing.Load()
		rt := routes.edge(t.table, r, back)
		if rt == nil {
			if routes.asOf.After(began) {
				return Result{}, r, partition.Errorf(partition.CodeNoSuchTable, "no table %q", t.table)
			}
			if time.Since(began) > t.c.cfg.Timeout {
				return Result{}, r, unheard(t.table)
			}
			if err := t.c.Refresh(ctx); err != nil {
				return Result{}, r, err
			}
			continue
		}
		part := r.Intersect(rt.Range())
		a, err := ask(part)
		var crossed *crossing
		if !errors.As(err, &crossed) {
			return a, part, err
		}
	}
}

// crossing is the error of a request whose keys are in more than one partition.
// Nothing was done.
type crossing struct{ err *partition.Error }

func (e *crossing) Error() string { return e.err.Error() }

func (e *crossing) Unwrap() error { return e.err }

func newCrossing(table string, span partition.KeyRange, rt *route) *crossing {
	return &crossing{&partition.Error{
		Code: partition.CodeInvalid,
		Why:  fmt.Sprintf("keys %s of table %q are in more than one partition: %s ends before %q", span, table, rt.group.id, rt.Hi),
		Next: "divide the request there; one request is executed by one partition",
	}}
}

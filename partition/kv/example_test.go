package kv_test

import (
	"errors"
	"fmt"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
	"pando.dev/pando/partition/kv/mem"
)

// replica is a partition with a state and a log position: what the rest of the
// system does for it.
type replica struct {
	p     partition.Partition
	space mem.Space
	index partition.Index
}

func newReplica() *replica {
	p, err := kv.New(partition.Spec{Table: "accounts", Group: 1})
	if err != nil {
		panic(err)
	}
	return &replica{p: p}
}

// do executes a command as the next record of the log.
func (r *replica) do(command []byte, err error) kv.Result {
	if err != nil {
		panic(err)
	}
	r.index++
	b, err := r.p.Apply(&r.space, partition.Command{Index: r.index, Payload: command})
	if err != nil {
		panic(err)
	}
	result, err := kv.ParseResult(b)
	if err != nil {
		panic(err)
	}
	return result
}

func (r *replica) get(key string) kv.GetAnswer {
	q, err := kv.Get([]byte(key))
	if err != nil {
		panic(err)
	}
	b, err := r.p.Read(&r.space, q)
	if err != nil {
		panic(err)
	}
	a, err := kv.ParseGet(b)
	if err != nil {
		panic(err)
	}
	return a
}

func Example() {
	r := newReplica()
	fmt.Println(r.do(kv.Put([]byte("alice"), []byte("100"))))
	a := r.get("alice")
	fmt.Printf("%s, version %d\n", a.Value, a.Version)
	r.do(kv.Delete([]byte("alice")))
	fmt.Println(r.get("alice").Found)
	// Output:
	// {true 1 0 0}
	// 100, version 1
	// false
}

// Two clients read the same balance; only the first to write it back succeeds.
func ExampleCompareAndSet() {
	r := newReplica()
	r.do(kv.CompareAndSet(kv.IfAbsent([]byte("alice")), []byte("100")))
	seen := r.get("alice").Version
	for _, balance := range []string{"90", "80"} {
		result := r.do(kv.CompareAndSet(kv.IfVersion([]byte("alice"), seen), []byte(balance)))
		if result.Applied {
			fmt.Printf("%s written as version %d\n", balance, result.Version)
		} else {
			fmt.Printf("%s not written: version is %d, not %d\n", balance, result.Current, seen)
		}
	}
	// Output:
	// 90 written as version 2
	// 80 not written: version is 2, not 1
}

// A transfer between two accounts of one partition: both writes or none.
func ExampleBatch() {
	r := newReplica()
	r.do(kv.Put([]byte("alice"), []byte("100")))
	r.do(kv.Put([]byte("bob"), []byte("0")))
	transfer := func(from, to string) (b kv.Batch) {
		b.If(kv.IfValue([]byte("alice"), []byte(from)))
		b.Put([]byte("alice"), []byte(to))
		b.Put([]byte("bob"), []byte("30"))
		return b
	}
	b := transfer("100", "70")
	fmt.Println("needs", b.Span())
	fmt.Println("applied:", r.do(b.Encode()).Applied)
	again := transfer("100", "70")
	fmt.Println("applied:", r.do(again.Encode()).Applied)
	fmt.Printf("%s %s\n", r.get("alice").Value, r.get("bob").Value)
	// Output:
	// needs ["alice","bob\x00")
	// applied: true
	// applied: false
	// 70 30
}

// A scan in answers of two pairs.
func ExampleScanQuery_Rest() {
	r := newReplica()
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		r.do(kv.Put([]byte(k), []byte("value of "+k)))
	}
	q := kv.ScanQuery{Range: partition.KeyRange{Lo: []byte("b")}, Limit: 2}
	for more := true; more; {
		b, _ := q.Encode()
		b, err := r.p.Read(&r.space, b)
		if err != nil {
			panic(err)
		}
		answer, err := kv.ParseScan(b)
		if err != nil {
			panic(err)
		}
		for _, p := range answer.Pairs {
			fmt.Printf("%s: %s\n", p.Key, p.Value)
		}
		fmt.Println("more:", answer.More)
		q, more = q.Rest(answer), answer.More
	}
	// Output:
	// b: value of b
	// c: value of c
	// more: true
	// d: value of d
	// e: value of e
	// more: false
}

// What is over a limit is refused with the limit and the value.
func ExamplePut_tooLarge() {
	_, err := kv.Put([]byte("k"), make([]byte, kv.MaxValueBytes+1))
	fmt.Println(err)
	fmt.Println(errors.Is(err, partition.ErrTooLarge))
	// Output:
	// too_large: value of 1048577 bytes, limit 1048576
	// true
}

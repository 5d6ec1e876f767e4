package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv/mem"
)

func ctxOfExample() context.Context { return context.Background() }

func ExampleClient_Propose() {
	c := newCluster(nil, 1) // in a program: the addresses of a cluster, and a Dialer
	client, err := Open(context.Background(), Config{Addrs: []string{"n1:1"}, Dial: c.dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := client.Propose(ctx, "t", []byte("key"), []byte("command"))
	switch partition.CodeOf(err) {
	case 0:
		fmt.Printf("executed by %s at index %d\n", r.Group, r.Index)
	case partition.CodeUnknown:
		fmt.Println("executed or not; at most once") // read the state to find out
	default:
		fmt.Println("not executed:", err)
	}
	// Output: executed by g1 at index 2
}

func ExampleClient_Go() {
	c := newCluster(nil, 1)
	client, err := Open(context.Background(), Config{Addrs: []string{"n1:1"}, Dial: c.dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	var all sync.WaitGroup
	for i := range 100 {
		all.Add(1)
		command := fmt.Appendf(nil, "command %d", i)
		client.Go(context.Background(), "t", []byte("key"), command, func(_ Result, err error) {
			defer all.Done()
			if err != nil {
				fmt.Println(err)
			}
		})
	}
	all.Wait()
	fmt.Println(len(c.order), "commands executed, the last was", c.order[99])
	// Output: 100 commands executed, the last was command 99
}

func ExampleKV_At() {
	c := newCluster(nil, 3)
	c.groups[1].space = &mem.Space{}
	client, err := Open(context.Background(), c.config())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	ctx := ctxOfExample()
	mine := client.KV("t").At(Session) // reads what is written through it, at any replica
	if _, err := mine.Put(ctx, []byte("fruit"), []byte("pear")); err != nil {
		fmt.Println(err)
		return
	}
	handed := mine.Seen().Token().String() // to another process

	token, err := ParseToken(handed)
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := client.KV("t").With(ReadOptions{Level: Session, Token: token}).Get(ctx, []byte("fruit"))
	fmt.Println(string(a.Value), err)
	// Output: pear <nil>
}

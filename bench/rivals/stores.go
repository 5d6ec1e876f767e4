package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	etcdwal "go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// target is what the writers write to.
type target interface {
	writer(i int) func(payload []byte) error
	close() error
}

// etcd is etcd's log. Save encodes, writes and syncs.
type etcd struct {
	w     *etcdwal.WAL
	index uint64
	batch []raftpb.Entry
}

func newEtcd(dir string, gather time.Duration) (target, error) {
	w, err := etcdwal.Create(zap.NewNop(), dir+"/etcd", nil)
	if err != nil {
		return nil, err
	}
	return newFront(&etcd{w: w}, gather), nil
}

func (s *etcd) write(batch [][]byte) error {
	s.batch = s.batch[:0]
	for _, p := range batch {
		s.index++
		s.batch = append(s.batch, raftpb.Entry{Term: 1, Index: s.index, Data: p})
	}
	return s.w.Save(raftpb.HardState{Term: 1}, s.batch)
}

func (s *etcd) close() error { return s.w.Close() }

// hashicorp is raft-wal.
type hashicorp struct {
	w     *raftwal.WAL
	index uint64
	batch []*raft.Log
}

func newHashicorp(dir string, gather time.Duration) (target, error) {
	w, err := raftwal.Open(dir)
	if err != nil {
		return nil, err
	}
	return newFront(&hashicorp{w: w}, gather), nil
}

func (s *hashicorp) write(batch [][]byte) error {
	for len(s.batch) < len(batch) {
		s.batch = append(s.batch, new(raft.Log))
	}
	for i, p := range batch {
		s.index++
		*s.batch[i] = raft.Log{Index: s.index, Term: 1, Data: p}
	}
	return s.w.StoreLogs(s.batch[:len(batch)])
}

func (s *hashicorp) close() error { return s.w.Close() }

// epoch is that of all records here.
const epoch = 1 << 16

// flushEvery is after how many records of a replica its state is said to be
// flushed, so that segments come back as they do in a node.
const flushEvery = 1024

func openPando(dir string) (*wal.Log, error) {
	l, _, err := wal.Open(wal.OS{}, dir, wal.Options{Node: "bench"})
	if err != nil {
		return nil, err
	}
	for range 10_000 { // the first start is not what is measured
		if l.Stats().Spares >= 2 {
			return l, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, errors.New("the log's spare segments are not ready after 10 s")
}

// replica makes the records of one group in a buffer of its own.
type replica struct {
	h   partition.Header
	buf []byte
	log []partition.Record
}

func (r *replica) add(payload []byte) {
	r.h.Index++
	at := len(r.buf)
	r.buf = partition.AppendRecord(r.buf, r.h, payload)
	rec := partition.Record(r.buf[at:])
	r.h.Prev = rec.Checksum()
	r.log = append(r.log, rec)
}

func (r *replica) reset() { r.buf, r.log = r.buf[:0], r.log[:0] }

// pando is our log as it is: each writer is a replica of its own.
type pando struct{ l *wal.Log }

func newPando(dir string, _ time.Duration) (target, error) {
	l, err := openPando(dir)
	return pando{l}, err
}

func (s pando) writer(i int) func([]byte) error {
	ch := make(chan error, 1)
	done := func(err error) { ch <- err }
	r := &replica{h: partition.Header{Group: partition.GroupID(i + 1), Epoch: epoch, Kind: partition.KindCommand}}
	return func(payload []byte) error {
		r.reset()
		r.add(payload)
		w := wal.Write{Group: r.h.Group, Replica: 1, Promise: epoch, Records: r.log}
		if err := s.l.Append(w, done); err != nil {
			return err
		}
		err := <-ch
		if r.h.Index%flushEvery == 0 {
			s.l.SetFlushed(r.h.Group, r.h.Index, 0)
		}
		return err
	}
}

func (s pando) close() error { return s.l.Close() }

// fronted is our log behind the same front as the rivals, with one replica.
type fronted struct {
	l     *wal.Log
	r     replica
	ch    chan error
	done  func(error)
	wrote atomic.Uint64
}

func newFronted(dir string, gather time.Duration) (target, error) {
	l, err := openPando(dir)
	if err != nil {
		return nil, err
	}
	s := &fronted{l: l, ch: make(chan error, 1)}
	s.done = func(err error) { s.ch <- err }
	s.r.h = partition.Header{Group: 1, Epoch: epoch, Kind: partition.KindCommand}
	return newFront(s, gather), nil
}

func (s *fronted) write(batch [][]byte) error {
	s.r.reset()
	need := 0
	for _, p := range batch {
		need += partition.RecordHeaderBytes + len(p)
	}
	if cap(s.r.buf) < need { // records must not move while others are added
		s.r.buf = make([]byte, 0, 2*need)
	}
	for _, p := range batch {
		s.r.add(p)
	}
	w := wal.Write{Group: 1, Replica: 1, Promise: epoch, Records: s.r.log}
	if err := s.l.Append(w, s.done); err != nil {
		return fmt.Errorf("append %d records: %w", len(batch), err)
	}
	err := <-s.ch
	if n := s.wrote.Add(uint64(len(batch))); n/flushEvery != (n-uint64(len(batch)))/flushEvery {
		s.l.SetFlushed(1, s.r.h.Index, 0)
	}
	return err
}

func (s *fronted) close() error { return s.l.Close() }

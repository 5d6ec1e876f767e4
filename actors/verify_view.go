package actors

import (
	"slices"
	"sync"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// maxViewsAt bounds the views that may be asked of one replica at a time.
const maxViewsAt = 4

// viewAt asks a replica for a view of its state as it is right after one record.
// The replica takes it in passing, between two writes to its store, so no command
// waits for it. Done or abandoned, it is answered once.
type viewAt struct {
	index partition.Index

	mu     sync.Mutex
	gone   bool // nobody waits any more
	answer chan viewAnswer
}

type viewAnswer struct {
	view *store.View
	err  error
}

func newViewAt(i partition.Index) *viewAt {
	return &viewAt{index: i, answer: make(chan viewAnswer, 1)}
}

// give answers; a view that nobody waits for is closed.
func (v *viewAt) give(view *store.View, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.gone {
		v.gone = true
		v.answer <- viewAnswer{view, err}
	} else if view != nil {
		_ = view.Close() // it was only read
	}
}

// abandon says that nobody waits any more.
func (v *viewAt) abandon() {
	v.mu.Lock()
	v.gone = true
	v.mu.Unlock()
	select {
	case a := <-v.answer:
		if a.view != nil {
			_ = a.view.Close()
		}
	default:
	}
}

func (v *viewAt) abandoned() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gone
}

// errPassed refuses a view of a state that is over.
func errPassed(at, applied partition.Index) *partition.Error {
	return partition.Errorf(partition.CodeRefused, "the state is at record %d, wanted is %d", applied, at)
}

// awaitView takes a request for a view in.
func (a *replicaActor) awaitView(m *viewAt) {
	a.views = slices.DeleteFunc(a.views, (*viewAt).abandoned)
	switch {
	case a.state == nil:
		m.give(nil, partition.Errorf(partition.CodeRefused, "the replica of %s keeps only the log", a.cell.group))
	case len(a.views) >= maxViewsAt:
		m.give(nil, partition.Errorf(partition.CodeBusy, "%d views of %s are waited for, the limit", maxViewsAt, a.cell.group))
	default:
		a.views = append(a.views, m)
		a.giveViews()
	}
}

// untilView returns the first of the records, up to one behind which somebody
// wants a view.
func (a *replicaActor) untilView(recs []partition.Record) []partition.Record {
	for _, m := range a.views {
		first, last := recs[0].Index(), recs[len(recs)-1].Index()
		if m.index >= first && m.index < last {
			recs = recs[:m.index-first+1]
		}
	}
	return recs
}

// giveViews answers those whose record was applied last, or is over.
func (a *replicaActor) giveViews() {
	a.views = slices.DeleteFunc(a.views, func(m *viewAt) bool {
		switch {
		case a.applied < m.index:
			return false
		case a.applied > m.index:
			m.give(nil, errPassed(m.index, a.applied))
		default:
			m.give(a.state.store.View())
		}
		return true
	})
}

// refuseViews answers all that wait, as the replica stops.
func (a *replicaActor) refuseViews(why *partition.Error) {
	for _, m := range a.views {
		m.give(nil, partition.Errorf(partition.CodeUnavailable, "%s", why.Why))
	}
	a.views = nil
}

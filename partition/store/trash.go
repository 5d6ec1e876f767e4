package store

import (
	"fmt"

	"pando.dev/pando/partition"
)

// Drop removes a store: its directory is moved to the trash and removed in the
// background. If a call or a view still uses the store, that happens when the
// last of them ends; should the process end before, Generations still lists
// it. Dropping what is not there does nothing.
func (e *Engine) Drop(g partition.GroupID, generation uint32) error {
	sp, err := e.space(ID{Group: g, Generation: generation})
	if err != nil {
		return err
	}
	sp.mu.Lock()
	sp.dropped = true
	sp.owner.Store(nil)
	busy := sp.uses.Load() > 0
	sp.mu.Unlock()
	if busy {
		return nil
	}
	return sp.bury()
}

// bury closes a dropped store and moves it to the trash, once.
func (sp *space) bury() error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.buried || sp.uses.Load() > 0 {
		return nil
	}
	sp.buried = true
	if sp.db != nil {
		if err := sp.closeLocked(); err != nil {
			sp.e.o.Logger.Warn("closing a dropped store", "group", uint64(sp.id.Group), "generation", sp.id.Generation, "err", err)
		}
	}
	err := sp.e.toTrash(sp)
	sp.e.mu.Lock()
	delete(sp.e.spaces, sp.id)
	sp.e.mu.Unlock()
	if err != nil {
		return classify(fmt.Errorf("drop store %s: %w", sp.id, err))
	}
	return nil
}

// toTrash renames a store's directory.
func (e *Engine) toTrash(sp *space) error {
	if _, err := e.fs.Stat(sp.dir); isNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	name, err := e.trashName(sp.id)
	if err != nil {
		return err
	}
	if err := e.fs.Rename(sp.dir, name); err != nil {
		return err
	}
	if err := e.syncDir(e.fs.PathDir(sp.dir)); err != nil {
		return err
	}
	select {
	case e.sweep <- struct{}{}:
	default:
	}
	return nil
}

// trashName is a name that is free.
func (e *Engine) trashName(id ID) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		e.buried++
		name := e.path(trashDir, fmt.Sprintf("%s.%d.%d", id.Group, id.Generation, e.buried))
		if _, err := e.fs.Stat(name); isNotExist(err) {
			return name, nil
		} else if err != nil {
			return "", err
		}
	}
}

// removeTrash empties the trash each time something was put there.
func (e *Engine) removeTrash() {
	defer e.tasks.Done()
	for {
		select {
		case <-e.quit:
			return
		case <-e.sweep:
		}
		names, err := e.fs.List(e.path(trashDir))
		if err != nil {
			e.o.Logger.Warn("listing the trash", "err", err)
			continue
		}
		for _, n := range names {
			if e.closing.Load() {
				return
			}
			if err := e.fs.RemoveAll(e.path(trashDir, n)); err != nil {
				e.o.Logger.Warn("removing from the trash", "name", n, "err", err)
			}
		}
	}
}

// removeEmpty removes the directories of groups that have no store any more.
// It runs before any store is made.
func (e *Engine) removeEmpty() {
	groups, err := e.fs.List(e.path(storesDir))
	if err != nil {
		return // whoever opens a store will say it
	}
	for _, g := range groups {
		if names, err := e.fs.List(e.path(storesDir, g)); err == nil && len(names) == 0 {
			_ = e.fs.Remove(e.path(storesDir, g))
		}
	}
}

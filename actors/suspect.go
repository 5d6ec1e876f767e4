package actors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// suspectFile names the replicas of this node that must never take part again.
const suspectFile = "SUSPECT"

// suspectMagic begins the file and names its format.
const suspectMagic = "pandosus1\n"

// suspects are the replicas that were on the disk when it turned out that the
// disk is not the one this node wrote last: one that was rolled back, or a copy.
// Each may have forgotten what it promised and acknowledged, and nothing in it
// shows that. So the list is on disk before anything else follows from it. A
// replica is struck off when it was dropped; its successor has another id.
type suspects struct {
	path string
	mu   sync.Mutex
	suspectList
}

// suspectList is the form in the file.
type suspectList struct {
	Replicas map[partition.GroupID]partition.ReplicaID `json:"replicas"`
	// Forgetful: there may have been more replicas than are on the disk. Until the
	// catalog has told which, none is made from its group's first record, for it
	// might be one that has been there.
	Forgetful bool `json:"forgetful"`
}

func openSuspects(dir string) (*suspects, error) {
	s := &suspects{path: filepath.Join(dir, suspectFile), suspectList: suspectList{Replicas: make(map[partition.GroupID]partition.ReplicaID)}}
	b, err := readSealed(s.path, suspectMagic)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err == nil:
		err = json.Unmarshal(b, &s.suspectList)
	case !errors.Is(err, partition.ErrCorrupt):
		return nil, fmt.Errorf("read the list of suspect replicas: %w", err)
	}
	if s.Replicas == nil && err == nil {
		err = errors.New("it has no list")
	}
	if err != nil {
		return nil, &partition.Error{
			Code: partition.CodeCorrupt, Why: fmt.Sprintf("the list of suspect replicas cannot be read: %v", err),
			Next: "start this node anew in an empty directory: its replicas cannot be trusted",
		}
	}
	return s, nil
}

// has reports whether the replica must stay silent.
func (s *suspects) has(g partition.GroupID, r partition.ReplicaID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r != 0 && s.Replicas[g] == r
}

// forgetful reports whether there may have been more than is known.
func (s *suspects) forgetful() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Forgetful
}

func (s *suspects) add(more map[partition.GroupID]partition.ReplicaID, forgetful bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g, r := range more { // in no order: a set
		s.Replicas[g] = r
	}
	was := s.Forgetful
	s.Forgetful = forgetful
	err := s.write()
	if err != nil {
		s.Forgetful = was || forgetful // what is not on disk is not known
	}
	return err
}

// strike takes what was here of a group before the given replica off the list.
func (s *suspects) strike(g partition.GroupID, before partition.ReplicaID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.Replicas[g]; !ok || r >= before {
		return nil
	}
	delete(s.Replicas, g)
	return s.write()
}

func (s *suspects) write() error {
	if len(s.Replicas) == 0 && !s.Forgetful {
		if err := os.Remove(s.path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, _ := json.Marshal(&s.suspectList) // numbers always encode
	return writeSealed(s.path, suspectMagic, b)
}

// silence keeps every replica on this node's disk from taking part again. Their
// groups go on without them and replace them.
func (n *Node) silence(why string) error {
	all := make(map[partition.GroupID]partition.ReplicaID)
	for g, hard := range n.log.Groups() {
		if !n.suspects.has(g, hard.Replica) {
			all[g] = hard.Replica
		}
	}
	n.logger.Error("every replica of this node falls silent", "why", why, "replicas", len(all))
	if err := n.suspects.add(all, true); err != nil {
		return fmt.Errorf("write down the suspect replicas: %w", err)
	}
	n.cells.each(func(c *cell) {
		c.box.PostUserMessage(&silenced{why: suspect(c.group, why)})
	})
	return nil
}

// remembered marks what the catalog says was here and is not. From then on
// replicas may be made here again.
func (n *Node) remembered(cat *control.Catalog) error {
	lost := make(map[partition.GroupID]partition.ReplicaID)
	for _, g := range cat.AllGroups() {
		// A learner has promised nothing that counts. It may be the successor of one
		// that was lost, and a voter that the catalog still takes for a learner is
		// known to its master.
		if m, ok := g.Membership.OnNode(n.ID()); ok && m.Kind != partition.Learner && n.cells.get(g.ID) == nil {
			lost[g.ID] = m.Replica
		}
	}
	n.logger.Warn("replicas that were here are lost", "count", len(lost))
	return n.suspects.add(lost, false)
}

// stale ends a process that turns out to run on an old copy of the node's disk.
// The next one may act for the node again: by then every replica here is known
// to be suspect, and is replaced by its group.
func (n *Node) stale(why error) {
	err := n.silence(asError(why).Why)
	if err == nil {
		err = n.identity.Skip()
	}
	if err != nil {
		n.logger.Error("suspect replicas not written down", "err", err)
		n.cfg.Fatal(why)
		return
	}
	e := &partition.Error{Code: partition.CodeSessionExpired, Why: asError(why).Why}
	e.Next = "if its disk was lost or put back from a copy, start it again: its replicas stay silent and are replaced; if its directory was copied, stop one of the two first"
	n.cfg.Fatal(e)
}

// silenced ends a replica for good.
type silenced struct{ why error }

func suspect(g partition.GroupID, why string) error {
	return &partition.Error{
		Code: partition.CodeCorrupt, Why: fmt.Sprintf("the replica of %s on this node may have forgotten what it promised: %s", g, why),
		Next: "the replica stays silent; its group goes on with the other members and replaces it",
	}
}

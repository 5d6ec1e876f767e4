package detector

import (
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// Mode is what is done about verdicts.
type Mode uint8

// The modes. In Observe everything is done but acting.
const (
	Act Mode = iota
	Observe
	Off
)

// String returns the name that the settings use.
func (m Mode) String() string { return [...]string{"act", "observe", "off"}[min(m, Off)] }

// ParseMode reads a mode; the empty name is Act.
func ParseMode(name string) (Mode, error) {
	for m := Act; m <= Off; m++ {
		if name == m.String() {
			return m, nil
		}
	}
	if name == "" {
		return Act, nil
	}
	return Off, &partition.Error{Code: partition.CodeInvalid, Why: fmt.Sprintf("%.20q says nothing about anomalies", name), Next: "use act, observe or off"}
}

// Relief decides how many masterships a node hands over because it is sick. It
// never empties a node of its replicas: that is an operator's decision.
type Relief struct {
	Mode Mode
	Self partition.NodeID
	// Verdicts are those in force on this node, Nodes is how many nodes are there
	// and Sick those that are known to be sick.
	Verdicts []Verdict
	Nodes    int
	Sick     []partition.NodeID
	// Held is how many groups are mastered here, Began how many were when it
	// began, Moved how many were handed over within the last minute.
	Held, Began, Moved int
}

// Sick returns why a node is sick by the verdicts; nil: it is not.
func Sick(id partition.NodeID, all []Verdict) *Verdict {
	for i := range all {
		if x, sick := all[i].SickNode(); sick && x == id {
			return &all[i]
		}
	}
	return nil
}

// Now is how many masterships may be handed over now, and why, or why none.
func (r Relief) Now() (int, string) {
	v := Sick(r.Self, r.Verdicts)
	if v == nil {
		return 0, ""
	}
	why := fmt.Sprintf("node %s is sick (%s): %s", r.Self, v.Kind, v.Evidence)
	sick := len(r.Sick)
	if !slices.Contains(r.Sick, r.Self) {
		sick++
	}
	// A tenth of what it had, each minute: if it is the load that makes nodes
	// sick, all at once would make the next one so.
	room := max(1, max(r.Began, r.Held)/10) - r.Moved
	switch {
	case r.Mode != Act:
		return 0, why + "; nothing is done: the mode is " + r.Mode.String()
	case 3*sick > r.Nodes:
		return 0, fmt.Sprintf("%s; nothing is done: %d of %d nodes are sick, which no hand-over mends", why, sick, r.Nodes)
	case r.Held == 0:
		return 0, why + "; it has no masterships"
	case room <= 0:
		return 0, fmt.Sprintf("%s; %d masterships were handed over within a minute", why, r.Moved)
	}
	return min(room, r.Held), why
}

// Advice is what an operator may do about a verdict.
func (v *Verdict) Advice() string {
	switch v.Kind {
	case SlowDisk:
		return "its masterships go to others by themselves; look after its disk, and if it stays so: pando node drain " + string(v.Node)
	case Overloaded:
		return "its masterships go to others by themselves; look what else runs there, or add a node"
	case SlowLink:
		return "look after the network between the two nodes"
	case Flapping:
		return "look into its log for why it ends or loses its links; until then: pando node drain " + string(v.Node)
	case HotGroup:
		return "it is divided by itself if its table's splits are auto; else: pando partition split " + v.Group.String()
	}
	return ""
}

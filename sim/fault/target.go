package fault

import (
	"fmt"
	"strconv"
	"strings"
)

// Target is whom a fault befalls: a node by its ordinal, from 0, or whoever has
// a role in a group when the fault comes. The zero value is node 0; None is
// nobody.
type Target int

// None is for classes that need no node.
const None Target = -1

// Role is what a node is to a group at a moment.
type Role uint8

// The roles.
const (
	Master    Role = iota + 1 // serves in the newest epoch; else whoever is about to
	Supporter                 // granted the master a lease, and is not the master
	Peer                      // is a member and not the master
	Holder                    // holds leases though a newer epoch has begun; else the master
	Candidate                 // asks for support; else a peer
	Learner                   // catches up and does not vote yet; else a peer
	Anyone                    // any node of the group
	roles
)

const maxGroups = 1 << 12

// Aim is whoever has the role in the group with this ordinal, from 0.
func Aim(r Role, group int) Target {
	return -2 - Target(int(r)*maxGroups+group%maxGroups)
}

// Role is what a target aims at; ok is false for nodes and None.
func (t Target) Role() (r Role, group int, ok bool) {
	if t >= None {
		return 0, 0, false
	}
	x := int(-2 - t)
	return Role(x / maxGroups), x % maxGroups, true
}

// Node is the ordinal of a node; ok is false for roles and None.
func (t Target) Node() (ordinal int, ok bool) { return int(t), t >= 0 }

// String is "3", "-", or "master@2".
func (t Target) String() string {
	if t == None {
		return "-"
	}
	if r, group, ok := t.Role(); ok {
		return fmt.Sprintf("%s@%d", r, group)
	}
	return strconv.Itoa(int(t))
}

// ParseTarget reads what String prints.
func ParseTarget(s string) (Target, error) {
	if s == "-" {
		return None, nil
	}
	name, number, aims := strings.Cut(s, "@")
	if !aims {
		number = s
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= maxGroups || strconv.Itoa(n) != number {
		return None, fmt.Errorf("target %q is neither -, nor a node, nor a role as in master@0", s)
	}
	if !aims {
		return Target(n), nil
	}
	for r := Master; r < roles; r++ {
		if r.String() == name {
			return Aim(r, n), nil
		}
	}
	return None, fmt.Errorf("target %q has no known role", s)
}

// Valid reports whether r is a role.
func (r Role) Valid() bool { return r > 0 && r < roles }

// String is the role's name.
func (r Role) String() string {
	switch r {
	case Master:
		return "master"
	case Supporter:
		return "supporter"
	case Peer:
		return "peer"
	case Holder:
		return "holder"
	case Candidate:
		return "candidate"
	case Learner:
		return "learner"
	case Anyone:
		return "anyone"
	}
	return "role-" + strconv.Itoa(int(r))
}

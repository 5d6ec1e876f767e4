package sim

import (
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

// Goal is a mark that a swarm has to reach within so many seeds.
type Goal struct {
	Mark  string
	Seeds uint64
}

// pointSeeds is how many seeds of the default mix suffice to reach every point.
const pointSeeds = 10_000

// Goals are the marks that the default mix has to reach: every point of the code.
func Goals() []Goal {
	var goals []Goal
	add := func(name string) { goals = append(goals, Goal{name, pointSeeds}) }
	for _, p := range replica.Points() {
		add("replica." + p.String())
	}
	for _, p := range lease.Points() {
		add("lease." + p.String())
	}
	for _, p := range wal.Points() {
		add("wal." + p.String())
	}
	return goals
}

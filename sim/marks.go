package sim

// Goal is a mark that a swarm has to reach within so many seeds.
type Goal struct {
	Mark  string
	Seeds uint64
}

// pointSeeds is how many seeds of the default mix suffice to reach every point.
const pointSeeds = 10_000

// elsewhere are the points that no simulated run comes by, and the test that does.
// A point that is missing here and is not reached fails a swarm.
var elsewhere = map[string]string{
	// A node of the simulator opens its leases before a message can come.
	"lease.withheld-closed": "partition/lease.TestRestartVoidsBothDirections",
	// Limits far above what 64 groups need.
	"lease.withheld-more": "partition/lease.TestGrowthIsBounded",
	"lease.distrust":      "partition/lease.TestGrowthIsBounded",
	// The simulator's hosts stop at what Stats says of the space, before the log has
	// to refuse anything.
	"wal.no-space": "wal.TestNoSpace",
	"wal.stuck":    "wal.TestNoSpaceForSegment",
}

// Goals are the marks that the default mix has to reach: every point of the code
// but those that are reached elsewhere.
func Goals() []Goal {
	var goals []Goal
	for _, name := range pointNames() {
		if elsewhere[name] == "" {
			goals = append(goals, Goal{name, pointSeeds})
		}
	}
	return goals
}

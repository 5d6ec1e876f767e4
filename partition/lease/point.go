package lease

// Point is a moment at which a fault is interesting, or a rare state that was
// reached. Config.Point is told of it, if set, under a lock of the table, and must
// not call the table. Simulators put their faults there, and count which points
// they come by; nothing in the product sets it.
type Point uint8

// The points.
const (
	AtGrant           Point = iota // a grant is given
	AtWithheldClosed               // none is given, since the table is not open yet
	AtWithheldMore                 // none is given, since not all revocations fit into the answer
	AtDeadBeat                     // a beat of a dead incarnation is dropped
	AtRevoked                      // a revocation while a grant runs
	AtRevokedAgain                 // a revocation goes with another answer
	AtAcknowledged                 // the holder has acted on a revocation
	AtHeld                         // a grant is held, or extended
	AtRevocationTaken              // the holder acts on a revocation
	AtStaleAnswer                  // an answer is dropped: of another incarnation, or to a forgotten beat
	AtPeerRestarted                // a newer incarnation of a peer becomes known
	AtDistrust                     // a peer has revoked more groups than are kept
	endOfPoints
)

// pointNames are the points as plans and coverage tables call them.
var pointNames = [...]string{
	AtGrant:           "grant",
	AtWithheldClosed:  "withheld-closed",
	AtWithheldMore:    "withheld-more",
	AtDeadBeat:        "dead-beat",
	AtRevoked:         "revoked",
	AtRevokedAgain:    "revoked-again",
	AtAcknowledged:    "acknowledged",
	AtHeld:            "held",
	AtRevocationTaken: "revocation-taken",
	AtStaleAnswer:     "stale-answer",
	AtPeerRestarted:   "peer-restarted",
	AtDistrust:        "distrust",
}

// String is the name of the point.
func (p Point) String() string {
	if p >= endOfPoints {
		return "unknown"
	}
	return pointNames[p]
}

// Points lists every point, in order.
func Points() []Point {
	all := make([]Point, endOfPoints)
	for i := range all {
		all[i] = Point(i)
	}
	return all
}

// point tells of a point.
func (c *Config) point(p Point) {
	if c.Point != nil {
		c.Point(p)
	}
}

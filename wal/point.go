package wal

// Point is a moment at which a fault is interesting, or a rare state that was
// reached. Options.Point is told of it, if set, from whichever goroutine came
// there, under the log's lock or not, and must not call the log. Simulators put
// their faults there, and count which points they come by; nothing in the product
// sets it.
type Point uint8

// The points.
const (
	AtBatchSealed   Point = iota // a batch is about to be written
	AtBatchSynced                // it is on disk, and nobody was told yet
	AtProof                      // an empty batch proves the last one synced
	AtRotate                     // a segment is full
	AtSealed                     // its footer is on disk
	AtRotated                    // the next one has its name
	AtSpareUsed                  // it was made from a spare
	AtSpareMissing               // there was none
	AtRecycled                   // a segment that nobody needs becomes a spare
	AtPoisoned                   // a write or sync has failed
	AtNoSpace                    // records are refused: the disk is full
	AtStuck                      // there is no space for the next segment
	AtSnipped                    // a snip is appended
	AtInstallKept                // an install keeps the tail
	AtInstallVoided              // an install voids the log
	AtDropped                    // a replica is dropped
	AtTornTail                   // a start cuts a torn batch
	AtRotFound                   // a start finds rot
	AtScanned                    // a start has read the last segment, and makes it durable
	AtFooterUnread               // a start reads a sealed segment batch by batch
	AtQuarantined                // a replica has lost records
	AtDamagedRead                // a record that is read back is damaged
	endOfPoints
)

// pointNames are the points as plans and coverage tables call them.
var pointNames = [...]string{
	AtBatchSealed:   "batch-sealed",
	AtBatchSynced:   "batch-synced",
	AtProof:         "proof",
	AtRotate:        "rotate",
	AtSealed:        "sealed",
	AtRotated:       "rotated",
	AtSpareUsed:     "spare-used",
	AtSpareMissing:  "spare-missing",
	AtRecycled:      "recycled",
	AtPoisoned:      "poisoned",
	AtNoSpace:       "no-space",
	AtStuck:         "stuck",
	AtSnipped:       "snipped",
	AtInstallKept:   "install-kept",
	AtInstallVoided: "install-voided",
	AtDropped:       "dropped",
	AtTornTail:      "torn-tail",
	AtRotFound:      "rot-found",
	AtScanned:       "scanned",
	AtFooterUnread:  "footer-unread",
	AtQuarantined:   "quarantined",
	AtDamagedRead:   "damaged-read",
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
func (o *Options) point(p Point) {
	if o.Point != nil {
		o.Point(p)
	}
}

//go:build !unix

package sim

import "time"

// processTime is not known here.
func processTime() time.Duration { return 0 }

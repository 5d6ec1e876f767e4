//go:build !linux

package cluster

import "testing"

func limitData(t *testing.T, _ uint64) { t.Skip("needs Linux") }

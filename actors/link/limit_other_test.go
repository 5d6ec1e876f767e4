//go:build !linux

package link

import "testing"

func limitData(t *testing.T, _ uint64) { t.Skip("needs Linux") }

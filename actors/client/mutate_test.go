package client

import (
	"testing"

	"pando.dev/pando/internal/mutate"
)

// TestSpoiledRequests and those below walk the decoders' paths with far more
// inputs than the fuzz targets; PANDO_MUTATE says how many.
func TestSpoiledRequests(t *testing.T) {
	req := sampleRequest()
	read := Request{ID: 8, Op: OpRead, Level: Session, Group: 3, TimeoutMS: 5, Key: []byte("k"), MinIndex: 9}
	mutate.Run(t, [][]byte{appendRequest(nil, &req)[prefixBytes:], appendRequest(nil, &read)[prefixBytes:]}, func(b []byte) { checkRequest(t, b) })
}

func TestSpoiledResponses(t *testing.T) {
	resp := sampleResponse()
	mutate.Run(t, [][]byte{appendResponse(nil, &resp)[prefixBytes:]}, func(b []byte) { checkResponse(t, b) })
}

func TestSpoiledRoutes(t *testing.T) {
	b, err := AppendRoutes(nil, sampleRoutes())
	if err != nil {
		t.Fatal(err)
	}
	mutate.Run(t, [][]byte{b}, func(b []byte) { checkRoutes(t, b) })
}

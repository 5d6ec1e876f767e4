package httpapi_test

import (
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// watchful is a twin that knows what limps.
type watchful struct {
	*twin
	all []actors.AnomalyInfo
}

func (w *watchful) Anomalies() []actors.AnomalyInfo { return w.all }

func TestAnomalies(t *testing.T) {
	over := time.Unix(1700000300, 0).UTC()
	tw := newTwin()
	w := &watchful{twin: tw, all: []actors.AnomalyInfo{
		{ID: "slow-disk:n3:1", Kind: "slow-disk", Subject: "n3", Node: "n3", Score: 14.5, Limit: 13.2, Evidence: "31ms", Confirmed: true,
			By: []partition.NodeID{"n1", "n2"}, Since: time.Unix(1700000000, 0).UTC(), Advice: "look after its disk"},
		{ID: "hot-group:g7:2", Kind: "hot-group", Subject: "g7", Group: 7, By: []partition.NodeID{"n1"}, Since: time.Unix(1700000000, 0).UTC(), Until: &over,
			Actions: []actors.AnomalyAction{{At: over, Group: 7, To: "n2", Err: "busy"}}},
	}}
	ask := func(cluster httpapi.Cluster) ([]actors.AnomalyInfo, error) {
		h, err := httpapi.New(httpapi.Config{Cluster: cluster, Catalog: tw, Store: tw, Meter: tw})
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(h)
		defer s.Close()
		c := &httpapi.Client{Addrs: []string{s.Listener.Addr().String()}}
		return c.Anomalies(t.Context())
	}
	if got, err := ask(w); err != nil || !reflect.DeepEqual(got, w.all) {
		t.Errorf("%+v, %v", got, err)
	}
	w.all = nil
	if got, err := ask(w); err != nil || got == nil || len(got) > 0 {
		t.Errorf("of none: %+v, %v", got, err)
	}
	if _, err := ask(tw); partition.CodeOf(err) != partition.CodeNotFound {
		t.Errorf("of nobody who watches: %v", err)
	}
}

package httpapi_test

import (
	"reflect"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// TestReadsSay: a read takes its level and bounds from the query and its token
// from the query or a header; every answer says in headers what it shows, and its
// token covers the one that came.
func TestReadsSay(t *testing.T) {
	tw := newTwin("t")
	h := newHandler(t, tw, nil)
	earlier := client.Result{Group: 3, Index: 70}.Token()
	w := ask(h, "PUT", "/api/v1/kv/t/k", "v", "Pando-Token", earlier.String())
	token, err := client.ParseToken(w.Header().Get("Pando-Token"))
	if err != nil || token.Index(3) != 70 || token.Index(17) != 1 || w.Header().Get("Pando-Index") != "1" || w.Header().Get("Pando-Group") != "g17" {
		t.Fatalf("put: %v, %v", w.Header(), err)
	}
	for _, x := range []struct {
		path, token string
		status      int
		want        httpapi.ReadOptions
	}{
		{"/api/v1/kv/t/k", "", 200, httpapi.ReadOptions{}},
		{"/api/v1/kv/t/k?level=quorum", "", 200, httpapi.ReadOptions{Level: httpapi.LevelQuorum}},
		{"/api/v1/kv/t/k", token.String(), 200, httpapi.ReadOptions{Token: token}},
		{"/api/v1/kv/t/k?level=session", token.String(), 200, httpapi.ReadOptions{Level: httpapi.LevelSession, Token: token}},
		{"/api/v1/kv/t/k?token=" + token.String(), "", 200, httpapi.ReadOptions{Level: httpapi.LevelSession, Token: token}},
		{"/api/v1/kv/t?level=session", token.String(), 200, httpapi.ReadOptions{Level: httpapi.LevelSession, Token: token}},
		{"/api/v1/kv/t/k?level=stale&max_age=250ms&min_index=9", "", 200, httpapi.ReadOptions{Level: httpapi.LevelStale, MinIndex: 9, MaxAge: 250 * time.Millisecond}},
		{"/api/v1/kv/t/k?level=stale", token.String(), 400, httpapi.ReadOptions{}},
		{"/api/v1/kv/t/k?max_age=1s", "", 400, httpapi.ReadOptions{}},
		{"/api/v1/kv/t/k?level=session&min_index=9", "", 400, httpapi.ReadOptions{}},
		{"/api/v1/kv/t/k?level=stale&min_index=-9", "", 400, httpapi.ReadOptions{}},
		{"/api/v1/kv/t/k?level=stale&max_age=soon", "", 400, httpapi.ReadOptions{}},
		{"/api/v1/kv/t/k?level=stale&max_age=-1s", "", 400, httpapi.ReadOptions{}},
		{"/api/v1/kv/t/k?token=" + token.String() + "A", "", 400, httpapi.ReadOptions{}},
	} {
		tw.asked = httpapi.ReadOptions{}
		w := ask(h, "GET", x.path, "", "Pando-Token", x.token)
		if w.Code != x.status || !reflect.DeepEqual(tw.asked, x.want) {
			t.Errorf("%s: status %d, asked with %+v, want %d and %+v", x.path, w.Code, tw.asked, x.status, x.want)
		}
		if w.Code != 200 {
			continue
		}
		back, err := client.ParseToken(w.Header().Get("Pando-Token"))
		if err != nil || back.Index(17) != 1 || back.Index(3) != x.want.Token.Index(3) || w.Header().Get("Pando-Age") != "3ms" {
			t.Errorf("%s: %v, %v", x.path, w.Header(), err)
		}
	}
}

// TestShownByPages: what pages of a scan show together is the least of them.
func TestShownByPages(t *testing.T) {
	page := func(g partition.GroupID, i partition.Index, age time.Duration) httpapi.Shown {
		return httpapi.Shown{Group: g, Index: i, Age: age, AgeKnown: age > 0, Token: client.Result{Group: g, Index: i}.Token()}
	}
	one := httpapi.Shown{}.Oldest(page(1, 9, 5)).Oldest(page(1, 7, 3))
	if one.Group != 1 || one.Index != 7 || one.Age != 5 || !one.AgeKnown || one.Token.Index(1) != 9 {
		t.Errorf("of one partition: %+v", one)
	}
	two := one.Oldest(page(2, 4, 0))
	if two.Group != 0 || two.AgeKnown || two.Token.Index(1) != 9 || two.Token.Index(2) != 4 {
		t.Errorf("of two: %+v", two)
	}
	if again := two.Oldest(page(1, 3, 1)); again.Group != 0 {
		t.Errorf("of two, and again of the first: %+v", again)
	}
}

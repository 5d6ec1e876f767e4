package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// Level is how fresh a read must be.
type Level string

// The levels that a request can name. Empty means LevelLease.
const (
	LevelLease   Level = "lease"   // linearizable, at the master, no round trip
	LevelQuorum  Level = "quorum"  // linearizable without relying on clocks
	LevelSession Level = "session" // not older than a token, at any replica
	LevelStale   Level = "stale"   // an earlier state, at any replica
)

// ReadOptions are a read's; the zero value is a read at LevelLease.
type ReadOptions struct {
	Level Level
	// Token is what the answer must not be older than. It is not needed with
	// lease and quorum, which never are, and may be given all the same; stale does
	// not heed it and refuses it.
	Token client.Token
	// MinIndex and MaxAge bound a read at LevelStale, as in client.ReadOptions.
	MinIndex partition.Index
	MaxAge   time.Duration
}

// Shown says which state an answer shows.
type Shown struct {
	Group partition.GroupID // that answered; 0 if there were several
	Index partition.Index   // the record of it that is the newest shown
	// Age is, if AgeKnown, how old the state at most is.
	Age      time.Duration
	AgeKnown bool
	// Token is for later reads: not older than this answer, nor than the token
	// that the request came with.
	Token client.Token
}

// The headers in which answers of /kv tell what they show, and in which a
// request may bring its token.
const (
	headerToken = "Pando-Token"
	headerGroup = "Pando-Group"
	headerIndex = "Pando-Index"
	headerAge   = "Pando-Age"
)

// add takes in one more answer that the whole is made of.
func (s *Shown) add(r client.Result) {
	if s.Index == 0 {
		s.Group, s.Index, s.Age, s.AgeKnown = r.Group, r.Index, r.Age, r.AgeKnown
	} else {
		s.AgeKnown = s.AgeKnown && r.AgeKnown
		s.Age = max(s.Age, r.Age)
		if s.Group == r.Group {
			s.Index = min(s.Index, r.Index)
		} else {
			s.Group = 0
		}
	}
	s.Token = s.Token.Join(r.Token())
}

// Oldest is what two answers show together, such as pages of one scan.
func (s Shown) Oldest(t Shown) Shown {
	token := s.Token.Join(t.Token)
	if s.Index == 0 {
		s = t
	} else {
		s.add(client.Result{Group: t.Group, Index: t.Index, Age: t.Age, AgeKnown: t.AgeKnown})
	}
	s.Token = token
	return s
}

// readOf reads a request's level, its bounds and its token.
func readOf(r *http.Request) (o ReadOptions, err error) {
	q := r.URL.Query()
	if o.Token, err = tokenOf(r); err != nil {
		return o, err
	}
	o.Level = Level(q.Get("level"))
	if o.Level == "" && q.Has("token") {
		o.Level = LevelSession
	}
	if s := q.Get("min_index"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return o, invalid("give the Pando-Index of an answer", "min_index %q is no record's number", s)
		}
		o.MinIndex = partition.Index(n)
	}
	if s := q.Get("max_age"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return o, invalid("give it like 2s or 250ms", "max_age %q is not a length of time", s)
		}
		o.MaxAge = d
	}
	_, err = o.of()
	return o, err
}

// tokenOf reads the token of a request, from its query or its header.
func tokenOf(r *http.Request) (client.Token, error) {
	s := r.URL.Query().Get("token")
	if s == "" {
		s = r.Header.Get(headerToken)
	}
	t, err := client.ParseToken(s)
	if err == nil && t.Len() >= client.MaxTokenGroups {
		// The answer's token has more: a write must not learn that afterwards.
		err = partition.Errorf(partition.CodeTooLarge, "a token of %d partitions, limit %d", t.Len(), client.MaxTokenGroups-1)
	}
	return t, err
}

// of returns the options as the client takes them.
func (o ReadOptions) of() (client.ReadOptions, error) {
	l, err := client.ParseLevel(string(o.Level))
	if err != nil {
		return client.ReadOptions{}, err
	}
	c := client.ReadOptions{Level: l, MinIndex: o.MinIndex, MaxAge: o.MaxAge}
	switch {
	case l == client.Session:
		c.Token = o.Token
	case l == client.Stale && !o.Token.IsZero():
		return c, invalid("use level session with a token", "a token with level stale, which does not heed it")
	}
	return c, c.Check()
}

// query puts the options into a request of the client's.
func (o ReadOptions) query(q url.Values) {
	if o.Level != "" {
		q.Set("level", string(o.Level))
	}
	if o.MinIndex != 0 {
		q.Set("min_index", strconv.FormatUint(uint64(o.MinIndex), 10))
	}
	if o.MaxAge != 0 {
		q.Set("max_age", o.MaxAge.String())
	}
}

// tell puts what an answer shows into its headers.
func (s Shown) tell(h http.Header) error {
	if err := s.Token.Check(); err != nil {
		return err
	}
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set(headerToken, s.Token.String())
	if s.AgeKnown {
		set(headerAge, s.Age.String())
	}
	if s.Group != 0 {
		set(headerGroup, s.Group.String())
		set(headerIndex, strconv.FormatUint(uint64(s.Index), 10))
	}
	return nil
}

// shownIn reads what tell wrote. What a node of another version tells in
// another form is left out.
func shownIn(h http.Header) (s Shown) {
	s.Token, _ = client.ParseToken(h.Get(headerToken))
	s.Group, _ = partition.ParseGroupID(h.Get(headerGroup))
	if n, err := strconv.ParseUint(h.Get(headerIndex), 10, 64); err == nil {
		s.Index = partition.Index(n)
	}
	if d, err := time.ParseDuration(h.Get(headerAge)); err == nil {
		s.Age, s.AgeKnown = d, true
	}
	return s
}

package httpapi

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// Pair is a key and its value in JSON. Text travels as text; what is not valid
// UTF-8 travels in the field of the same name with 64, in base64.
type Pair struct {
	Key     string  `json:"key,omitempty"`
	Key64   []byte  `json:"key64,omitempty"`
	Value   string  `json:"value"`
	Value64 []byte  `json:"value64,omitempty"`
	Version Version `json:"version,omitempty"`
}

// NewPair returns the pair in the form that carries it without loss.
func NewPair(key, value []byte, v Version) Pair {
	p := Pair{Version: v}
	if utf8.Valid(key) && len(key) > 0 {
		p.Key = string(key)
	} else {
		p.Key64 = key
	}
	if utf8.Valid(value) {
		p.Value = string(value)
	} else {
		p.Value64 = value
	}
	return p
}

// KeyBytes is the key, whatever form it came in.
func (p Pair) KeyBytes() []byte {
	if p.Key64 != nil {
		return p.Key64
	}
	return []byte(p.Key)
}

// ValueBytes is the value, whatever form it came in.
func (p Pair) ValueBytes() []byte {
	if p.Value64 != nil {
		return p.Value64
	}
	return []byte(p.Value)
}

// Page is one answer of a scan. A Cursor that is not empty continues it.
type Page struct {
	Pairs  []Pair `json:"pairs"`
	Cursor string `json:"cursor,omitempty"`
	// Shown is what the page shows; it travels in the headers.
	Shown Shown `json:"-"`
}

func (a *api) kvMethods() methods {
	return methods{
		http.MethodGet:    {cert.Client, a.kvGetOrScan},
		http.MethodPut:    {cert.Client, a.kvPut},
		http.MethodDelete: {cert.Client, a.kvDelete},
	}
}

func (a *api) kvGetOrScan(w http.ResponseWriter, r *http.Request) error {
	o, err := readOf(r)
	if err != nil {
		return err
	}
	key, ok, err := keyOf(r)
	if err != nil {
		return err
	}
	if !ok {
		return a.kvScan(w, r, o)
	}
	v, err := a.cfg.Store.Get(r.Context(), r.PathValue("table"), key, o)
	if err != nil {
		return err
	}
	h := w.Header()
	if err := v.Shown.tell(h); err != nil {
		return err
	}
	if v.Version != "" {
		h.Set("ETag", strconv.Quote(string(v.Version)))
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		answer(w, http.StatusOK, NewPair(key, v.Bytes, v.Version))
		return nil
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(v.Bytes)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(v.Bytes) // the client is gone if this fails
	return nil
}

func (a *api) kvPut(w http.ResponseWriter, r *http.Request) error {
	key, cond, token, err := writeOf(r)
	if err != nil {
		return err
	}
	if r.ContentLength > a.cfg.MaxValueBytes {
		return partition.Errorf(partition.CodeTooLarge, "a value of %d bytes, limit %d", r.ContentLength, a.cfg.MaxValueBytes)
	}
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, a.cfg.MaxValueBytes))
	if err != nil {
		return badBody(err)
	}
	put, err := a.cfg.Store.Put(r.Context(), r.PathValue("table"), key, value, cond)
	if err != nil {
		return err
	}
	if put.Version != "" {
		w.Header().Set("ETag", strconv.Quote(string(put.Version)))
	}
	return written(w, put.Shown, token)
}

// written answers a write with its token, joined with the request's.
func written(w http.ResponseWriter, shown Shown, token client.Token) error {
	shown.Token = shown.Token.Join(token)
	if err := shown.tell(w.Header()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) kvDelete(w http.ResponseWriter, r *http.Request) error {
	key, cond, token, err := writeOf(r)
	if err != nil {
		return err
	}
	shown, err := a.cfg.Store.Delete(r.Context(), r.PathValue("table"), key, cond)
	if err != nil {
		return err
	}
	return written(w, shown, token)
}

func (a *api) kvScan(w http.ResponseWriter, r *http.Request, o ReadOptions) error {
	kr, err := rangeOf(r.URL.Query())
	if err != nil {
		return err
	}
	limit := scanPairs
	if s := r.URL.Query().Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxScanPairs {
			return invalid("", "limit %q is not a number from 1 to %d", s, maxScanPairs)
		}
	}
	page := Page{Pairs: []Pair{}}
	if !kr.Empty() {
		part, err := a.cfg.Store.Scan(r.Context(), r.PathValue("table"), kr, limit, o)
		if err != nil {
			return err
		}
		for _, p := range part.Pairs {
			page.Pairs = append(page.Pairs, NewPair(p.Key, p.Value, ""))
		}
		if n := len(part.Pairs); part.More && n > 0 {
			page.Cursor = base64.RawURLEncoding.EncodeToString(part.Pairs[n-1].Key)
		}
		if err := part.Shown.tell(w.Header()); err != nil {
			return err
		}
	}
	answer(w, http.StatusOK, page)
	return nil
}

// writeOf reads the key, the condition and the token of a write.
func writeOf(r *http.Request) (key []byte, c Condition, t client.Token, err error) {
	key, ok, err := keyOf(r)
	if err != nil {
		return nil, c, t, err
	}
	if !ok {
		return nil, c, t, invalid("put it behind the table as /api/v1/kv/{table}/{key}, or give ?key64=", "no key is given")
	}
	if t, err = tokenOf(r); err != nil {
		return nil, c, t, err
	}
	c, err = conditionOf(r)
	return key, c, t, err
}

// keyOf reads the key from the path or from ?key64=; ok is false without one.
func keyOf(r *http.Request) (key []byte, ok bool, err error) {
	q := r.URL.Query()
	inPath := r.PathValue("key")
	if !q.Has("key64") {
		return []byte(inPath), inPath != "", nil
	}
	if inPath != "" {
		return nil, false, invalid("", "a key in the path and in key64")
	}
	key, err = decode64("key64", q.Get("key64"))
	return key, true, err
}

func conditionOf(r *http.Request) (Condition, error) {
	q := r.URL.Query()
	c := Condition{Version: Version(q.Get("if_version"))}
	if s := q.Get("if_absent"); s != "" {
		absent, err := strconv.ParseBool(s)
		if err != nil {
			return c, invalid("", "if_absent %q is neither true nor false", s)
		}
		c.Absent = absent
	}
	if m := r.Header.Get("If-Match"); m != "" {
		v, err := strconv.Unquote(m)
		if err != nil || v == "" {
			return c, invalid("give one ETag in double quotes, as an answer had it", "If-Match %s is not one ETag", m)
		}
		c.Version = Version(v)
	}
	switch r.Header.Get("If-None-Match") {
	case "":
	case "*":
		c.Absent = true
	default:
		return c, invalid("use If-None-Match: * or If-Match", "If-None-Match with an ETag is not supported")
	}
	if c.Absent && c.Version != "" {
		return c, invalid("", "a key cannot be absent and have a version")
	}
	return c, nil
}

// rangeOf reads lo and hi (or prefix) and the cursor, each also with 64.
func rangeOf(q url.Values) (partition.KeyRange, error) {
	var kr partition.KeyRange
	part := func(name string) ([]byte, error) {
		if q.Has(name + "64") {
			return decode64(name+"64", q.Get(name+"64"))
		}
		return []byte(q.Get(name)), nil
	}
	lo, err := part("lo")
	if err != nil {
		return kr, err
	}
	hi, err := part("hi")
	if err != nil {
		return kr, err
	}
	prefix, err := part("prefix")
	if err != nil {
		return kr, err
	}
	kr = partition.KeyRange{Lo: lo, Hi: hi}
	if len(prefix) > 0 {
		if len(lo) > 0 || len(hi) > 0 {
			return kr, invalid("", "a prefix together with lo or hi")
		}
		kr = PrefixRange(prefix)
	}
	if s := q.Get("cursor"); s != "" {
		last, err := decode64("cursor", s)
		if err != nil {
			return kr, err
		}
		kr = kr.Intersect(partition.KeyRange{Lo: append(last, 0)})
	}
	return kr, nil
}

// PrefixRange is the range of all keys that begin with the prefix.
func PrefixRange(prefix []byte) partition.KeyRange {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			hi := append([]byte{}, prefix[:i+1]...)
			hi[i]++
			return partition.KeyRange{Lo: prefix, Hi: hi}
		}
	}
	return partition.KeyRange{Lo: prefix}
}

// decode64 reads base64 in the URL or the standard alphabet, padded or not.
func decode64(name, s string) ([]byte, error) {
	if len(s) > maxKeyInQuery {
		return nil, partition.Errorf(partition.CodeTooLarge, "%s of %d bytes, limit %d", name, len(s), maxKeyInQuery)
	}
	t := strings.NewReplacer("+", "-", "/", "_", " ", "-").Replace(strings.TrimRight(s, "="))
	b, err := base64.RawURLEncoding.DecodeString(t)
	if err != nil {
		return nil, invalid("encode it in base64, URL alphabet", "%s %q is not base64", name, s)
	}
	return b, nil
}

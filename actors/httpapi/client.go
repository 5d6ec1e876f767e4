package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// Client asks nodes over HTTP. It tries its addresses in order and goes on to
// the next one only when it knows that the request was not executed, or when it
// only reads. It is safe for many goroutines.
type Client struct {
	Addrs []string // host:port of nodes, at least one
	HTTP  *http.Client
	TLS   bool // speak https
}

// maxAnswer bounds what is read of one answer: a page of a scan at its largest
// is limits times base64.
const maxAnswer = 1 << 31

// Status asks how the cluster is.
func (c *Client) Status(ctx context.Context) (actors.ClusterStatus, error) {
	return get[actors.ClusterStatus](ctx, c, "/api/v1/status")
}

// Members lists the nodes as the answering one sees them.
func (c *Client) Members(ctx context.Context) ([]actors.MemberInfo, error) {
	return get[[]actors.MemberInfo](ctx, c, "/api/v1/members")
}

// Partitions lists the partitions of a table, or all for "".
func (c *Client) Partitions(ctx context.Context, table string) ([]actors.PartitionInfo, error) {
	path := "/api/v1/partitions"
	if table != "" {
		path += "?table=" + url.QueryEscape(table)
	}
	return get[[]actors.PartitionInfo](ctx, c, path)
}

// Partition describes one partition.
func (c *Client) Partition(ctx context.Context, g partition.GroupID) (actors.PartitionInfo, error) {
	return get[actors.PartitionInfo](ctx, c, "/api/v1/partitions/"+g.String())
}

// Tables lists the catalog's tables.
func (c *Client) Tables(ctx context.Context) ([]actors.TableInfo, error) {
	return get[[]actors.TableInfo](ctx, c, "/api/v1/tables")
}

// CreateTable makes a table.
func (c *Client) CreateTable(ctx context.Context, spec actors.TableSpec) (actors.TableInfo, error) {
	return change[actors.TableInfo](ctx, c, http.MethodPost, "/api/v1/tables", spec)
}

// AlterTable changes what a table shall be.
func (c *Client) AlterTable(ctx context.Context, name string, to actors.TableChange) (actors.TableInfo, error) {
	return change[actors.TableInfo](ctx, c, http.MethodPatch, "/api/v1/tables/"+url.PathEscape(name), to)
}

// DropTable removes a table and everything in it.
func (c *Client) DropTable(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/api/v1/tables/" + url.PathEscape(name)}, nil)
	return err
}

// Get reads one value.
func (c *Client) Get(ctx context.Context, table string, key []byte, o ReadOptions) (Value, error) {
	q := keyQuery(key)
	o.query(q)
	var raw []byte
	h, err := c.do(ctx, request{method: http.MethodGet, path: kvPath(table, q), token: o.Token}, &raw)
	if err != nil {
		return Value{}, err
	}
	return Value{Bytes: raw, Version: versionOf(h), Shown: shownIn(h)}, nil
}

// Put stores one value if the condition holds.
func (c *Client) Put(ctx context.Context, table string, key, value []byte, cond Condition) (Written, error) {
	if value == nil {
		value = []byte{}
	}
	h, err := c.do(ctx, request{method: http.MethodPut, path: kvPath(table, condQuery(key, cond)), body: value}, nil)
	return Written{versionOf(h), shownIn(h)}, err
}

// Delete removes one key if the condition holds.
func (c *Client) Delete(ctx context.Context, table string, key []byte, cond Condition) (Shown, error) {
	h, err := c.do(ctx, request{method: http.MethodDelete, path: kvPath(table, condQuery(key, cond))}, nil)
	return shownIn(h), err
}

// Scan reads one page of a range; cursor is empty for the first.
func (c *Client) Scan(ctx context.Context, table string, r partition.KeyRange, limit int, cursor string, o ReadOptions) (Page, error) {
	q := url.Values{}
	o.query(q)
	if len(r.Lo) > 0 {
		q.Set("lo64", base64.RawURLEncoding.EncodeToString(r.Lo))
	}
	if len(r.Hi) > 0 {
		q.Set("hi64", base64.RawURLEncoding.EncodeToString(r.Hi))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(min(limit, maxScanPairs)))
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	var page Page
	h, err := c.do(ctx, request{method: http.MethodGet, path: kvPath(table, q), token: o.Token}, &page)
	page.Shown = shownIn(h)
	return page, err
}

func kvPath(table string, q url.Values) string {
	return "/api/v1/kv/" + url.PathEscape(table) + "?" + q.Encode()
}

func keyQuery(key []byte) url.Values {
	return url.Values{"key64": {base64.RawURLEncoding.EncodeToString(key)}}
}

func condQuery(key []byte, cond Condition) url.Values {
	q := keyQuery(key)
	if cond.Version != "" {
		q.Set("if_version", string(cond.Version))
	}
	if cond.Absent {
		q.Set("if_absent", "true")
	}
	return q
}

func versionOf(h http.Header) Version {
	v, err := strconv.Unquote(h.Get("ETag"))
	if err != nil {
		return ""
	}
	return Version(v)
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	_, err := c.do(ctx, request{method: http.MethodGet, path: path}, &v)
	return v, err
}

// change sends what a node shall do as JSON, and reads what came of it.
func change[T any](ctx context.Context, c *Client, method, path string, what any) (T, error) {
	var v T
	body, err := json.Marshal(what)
	if err != nil {
		return v, fmt.Errorf("encode the request: %w", err)
	}
	_, err = c.do(ctx, request{method: method, path: path, body: body}, &v)
	return v, err
}

type request struct {
	method, path string
	body         []byte // nil: none
	token        client.Token
}

// do sends the request to the first node that takes it.
func (c *Client) do(ctx context.Context, q request, into any) (http.Header, error) {
	var last error
	for i, addr := range c.Addrs {
		h, err := c.tryWithin(ctx, len(c.Addrs)-i, addr, q, into)
		if err == nil || ctx.Err() != nil || !c.mayTryNext(q, err) {
			return h, err
		}
		if _, nobody := err.(*absent); last == nil || !nobody { // what a node says tells more
			last = err
		}
	}
	if last == nil {
		last = invalid("give --addr host:port", "no address of a node is known")
	}
	return nil, last
}

// mayTryNext reports whether another node may be asked after err.
func (c *Client) mayTryNext(q request, err error) bool {
	switch partition.CodeOf(err) {
	case partition.CodeUnavailable, partition.CodeClosed, partition.CodeNotMaster, partition.CodeBusy, partition.CodeBehind:
		return true // nothing was done
	case partition.CodeUnknown, partition.CodeTimeout:
		return q.method == http.MethodGet
	}
	return false
}

// tryWithin gives a read its share of the time that is left, so that a node
// which hangs does not use up what the others would need. A change is sent only
// once, so it may take all.
func (c *Client) tryWithin(ctx context.Context, left int, addr string, q request, into any) (http.Header, error) {
	if deadline, ok := ctx.Deadline(); ok && q.method == http.MethodGet {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return c.try(ctx, addr, q, into)
}

func (c *Client) try(ctx context.Context, addr string, q request, into any) (http.Header, error) {
	scheme := "http://"
	if c.TLS {
		scheme = "https://"
	}
	r, err := http.NewRequestWithContext(ctx, q.method, scheme+addr+withDeadline(ctx, q.path), bytes.NewReader(q.body))
	if err != nil {
		return nil, invalid("give addresses as host:port", "address %q: %v", addr, err)
	}
	if q.body == nil {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	if !q.token.IsZero() {
		r.Header.Set(headerToken, q.token.String())
	}
	resp, err := c.client().Do(r)
	if err != nil {
		return nil, unreachable(addr, q.method, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, unreachable(addr, q.method, err)
	}
	if resp.StatusCode >= 300 {
		return nil, problem(addr, resp, body)
	}
	return resp.Header, decode(addr, q.method, body, into)
}

func (c *Client) client() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return http.DefaultClient
}

// withDeadline tells the node how long the caller will wait.
func withDeadline(ctx context.Context, path string) string {
	deadline, ok := ctx.Deadline()
	if !ok {
		return path
	}
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	left := max(time.Until(deadline)*9/10, time.Millisecond) // its answer must still arrive
	return path + sep + "timeout=" + left.Round(time.Millisecond).String()
}

// decode reads the answer. A node that took a change and answers what nobody can
// read may have carried it out.
func decode(addr, method string, body []byte, into any) error {
	switch v := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*v = body
		return nil
	}
	err := json.Unmarshal(body, into)
	switch {
	case err == nil:
		return nil
	case method == http.MethodGet:
		return invalid("give the HTTP address of a node with --addr", "%s does not answer as a pando node does: %v", addr, err)
	}
	return partition.Errorf(partition.CodeUnknown, "%s took the request and answered what cannot be read: %v", addr, err)
}

func problem(addr string, resp *http.Response, body []byte) error {
	var p Problem
	if strings.Contains(string(body), "HTTP request to an HTTPS server") {
		return invalid("give --tls-dir with a client's certificate", "%s wants TLS", addr)
	}
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("%s answered %s and not as a pando node does", addr, resp.Status),
			Next: "give the HTTP address of a node with --addr",
		}
	}
	return p.err()
}

// absent is the error of an address where no node was reached.
type absent struct{ why *partition.Error }

func (a *absent) Error() string { return a.why.Error() }

func (a *absent) Unwrap() error { return a.why }

// unreachable classifies a failed exchange: if the connection never came to be,
// nothing was done; after that the outcome of a change is not known.
func unreachable(addr, method string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	e := &partition.Error{Code: partition.CodeUnavailable, Why: fmt.Sprintf("%s: %v", addr, err)}
	var refused *partition.Error
	if errors.As(err, &refused) { // a certificate of the node's that ours do not trust
		return &partition.Error{Code: refused.Code, Why: fmt.Sprintf("%s: %s", addr, refused.Why), Next: "check that --tls-dir is of this cluster"}
	}
	if strings.Contains(err.Error(), "remote error: tls: ") {
		return &partition.Error{
			Code: partition.CodeUnauthorized, Why: fmt.Sprintf("%s does not take the certificate: %v", addr, err),
			Next: "check that --tls-dir is of this cluster and has not expired",
		}
	}
	var op *net.OpError
	dial := errors.As(err, &op) && op.Op == "dial"
	switch {
	case dial && errors.Is(err, syscall.ECONNREFUSED):
		e.Why = "no node listens at " + addr
		e.Next = "start one with pando node or pando demo, or give --addr host:port"
		return &absent{e}
	case dial:
		e.Next = "check --addr (or PANDO_ADDR)"
		return &absent{e}
	case errors.Is(err, context.DeadlineExceeded) && method == http.MethodGet:
		e.Code = partition.CodeTimeout
	case method != http.MethodGet:
		e.Code = partition.CodeUnknown
		e.Why = fmt.Sprintf("%s took the request and did not answer: %v", addr, err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Code, e.Next = partition.CodeInvalid, "the node speaks plain HTTP: leave --tls-dir out"
	default:
		e.Next = "see the node's log, or ask another node with --addr"
	}
	return e
}

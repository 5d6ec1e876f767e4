package actors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// drainFile keeps a node's word on whether it is in service.
	drainFile = "DRAIN"
	// drainLook is how often a drain that somebody waits for is looked at.
	drainLook = 50 * time.Millisecond
	// drainPatience is how long a node that stops waits for groups of which
	// nothing comes.
	drainPatience = time.Second
	// maxLeftShown bounds the partitions that a message names.
	maxLeftShown = 3
)

// word is whether a node is in service, by its own word. Seq is one more with
// every change, so that of two words the newer one is known, whichever way and
// in whatever order they come: by a call, or by a gossip tag.
type word struct {
	Seq    uint64          `json:"seq"`
	Drain  placement.Drain `json:"drain"`
	Force  bool            `json:"force,omitempty"`
	Reason string          `json:"reason,omitempty"`
}

// maxReasonBytes bounds the reason of a drain.
const maxReasonBytes = 256

// tag is the word as gossip carries it: "12m".
func (w word) tag() string {
	if w.Seq == 0 {
		return ""
	}
	return strconv.FormatUint(w.Seq, 10) + map[placement.Drain]string{placement.Stopping: "s", placement.Maintenance: "m"}[w.Drain]
}

// wordOf reads a tag; what it does not understand says nothing.
func wordOf(tag string) word {
	digits := strings.TrimRight(tag, "sm")
	w := word{}
	switch tag[len(digits):] {
	case "s":
		w.Drain = placement.Stopping
	case "m":
		w.Drain = placement.Maintenance
	case "":
	default:
		return word{}
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return word{}
	}
	w.Seq = seq
	return w
}

// mode is the word for people.
func (w word) mode() string {
	switch w.Drain {
	case placement.Stopping:
		return "stopping"
	case placement.Maintenance:
		return "drained"
	}
	return ""
}

// service is this node's own word, on disk before it is told to anybody.
type service struct {
	path string

	mu      sync.Mutex
	word    word
	changed chan struct{} // closed at the next change
}

// openService reads the node's word. That it stops ends with the next start; a
// drain that an operator asked for does not.
func openService(dir string) (*service, error) {
	s := &service{path: filepath.Join(dir, drainFile), changed: make(chan struct{})}
	b, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("read whether the node is drained: %w", err)
	}
	if err := json.Unmarshal(b, &s.word); err != nil || s.word.Drain > placement.Maintenance {
		return nil, &partition.Error{
			Code: partition.CodeCorrupt, Why: fmt.Sprintf("%s is damaged: %v", s.path, err),
			Next: "remove the file; the node is in service then",
		}
	}
	if s.word.Drain == placement.Stopping {
		err = s.set(func(w *word) { *w = word{Seq: w.Seq} })
	}
	return s, err
}

func (s *service) get() (word, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.word, s.changed
}

func (s *service) now() word { w, _ := s.get(); return w }

// set changes the word and writes it down. The same word again changes nothing.
func (s *service) set(change func(*word)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.word
	change(&next)
	if next == s.word {
		return nil
	}
	next.Seq = s.word.Seq + 1
	b, _ := json.Marshal(next) // numbers and text always encode
	if err := writeFile(s.path, b); err != nil {
		return fmt.Errorf("write down whether the node is drained: %w", err)
	}
	s.word = next
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// tellMode keeps the gossip tag in agreement with the node's word.
func (n *Node) tellMode() {
	for {
		w, changed := n.service.get()
		if err := n.gossip.SetTag(cluster.TagMode, w.tag()); err != nil {
			n.logger.Debug("gossip tag not set", "tag", cluster.TagMode, "err", err)
		}
		select {
		case <-n.ctx.Done():
			return
		case <-changed:
		}
	}
}

// DrainOptions say which node is taken out of service, and how.
type DrainOptions struct {
	Node   partition.NodeID `json:"node,omitempty"` // default: this one
	Reason string           `json:"reason,omitempty"`
	// Force goes on although partitions could then not commit: it is logged.
	Force bool `json:"force,omitempty"`
}

// DrainInfo says how far a drain, or its end, is.
type DrainInfo struct {
	Node   partition.NodeID `json:"node"`
	Mode   string           `json:"mode"` // empty: in service; drained, stopping
	Reason string           `json:"reason,omitempty"`
	// Replicas is how many replicas the node holds, Left are those that do not
	// agree with Mode yet.
	Replicas int         `json:"replicas"`
	Left     []DrainLeft `json:"left,omitempty"`
	Done     bool        `json:"done"`
}

// DrainLeft is a partition that does not agree with the node's mode yet.
type DrainLeft struct {
	Group partition.GroupID `json:"group"`
	Why   string            `json:"why"`
	// Working: it is on its way. Otherwise it stays so as things are.
	Working bool `json:"working"`
}

// Drain takes a node out of service: its masterships go to others, and then its
// replicas count for nothing, so that it may be stopped. It stays drained over
// restarts, until Undrain. A drain with which a partition could not commit any
// more is refused, unless it is forced. If ctx ends first the drain goes on, and
// the error says what is left.
func (n *Node) Drain(ctx context.Context, o DrainOptions) (DrainInfo, error) {
	info, err := n.beginDrain(ctx, "drain", o)
	if err != nil {
		return info, err
	}
	return n.awaitDrain(ctx, o.Node, "drained")
}

// Undrain takes a node, or this one if it is empty, back into service and waits
// until its replicas count again.
func (n *Node) Undrain(ctx context.Context, node partition.NodeID) (DrainInfo, error) {
	info, err := n.beginDrain(ctx, "undrain", DrainOptions{Node: node})
	if err != nil {
		return info, err
	}
	return n.awaitDrain(ctx, node, "")
}

// BeginDrain and BeginUndrain are Drain and Undrain without the wait.
func (n *Node) BeginDrain(ctx context.Context, o DrainOptions) (DrainInfo, error) {
	return n.beginDrain(ctx, "drain", o)
}

// BeginUndrain begins to take a node back into service.
func (n *Node) BeginUndrain(ctx context.Context, node partition.NodeID) (DrainInfo, error) {
	return n.beginDrain(ctx, "undrain", DrainOptions{Node: node})
}

// DrainStatus says how far the drain of a node, or its end, is.
func (n *Node) DrainStatus(ctx context.Context, node partition.NodeID) (DrainInfo, error) {
	return n.beginDrain(ctx, "status", DrainOptions{Node: node})
}

// awaitDrain waits until the node's replicas agree with its mode.
func (n *Node) awaitDrain(ctx context.Context, node partition.NodeID, mode string) (DrainInfo, error) {
	var last DrainInfo
	tick := time.NewTicker(4 * drainLook)
	defer tick.Stop()
	for {
		info, err := n.DrainStatus(ctx, node)
		switch {
		case err == nil && info.Mode != mode:
			return info, &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("meanwhile somebody else decided that node %s is %s", info.Node, modeText(info.Mode))}
		case err == nil && info.Done:
			return info, nil
		case err == nil:
			last = info
		}
		select {
		case <-ctx.Done():
			return last, DrainUnfinished(last, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func modeText(mode string) string {
	if mode == "" {
		return "in service"
	}
	return mode
}

// DrainUnfinished is the error of a drain, or its end, that is still under way.
func DrainUnfinished(info DrainInfo, cause error) error {
	return &partition.Error{
		Code: partition.CodeUnknown,
		Why:  fmt.Sprintf("node %s is %s, but %d partitions do not agree yet (%v): %s", info.Node, modeText(info.Mode), len(info.Left), cause, leftText(info.Left)),
		Next: "it goes on by itself; look with pando node drain --status, or take it back with pando node undrain",
	}
}

func leftText(left []DrainLeft) string {
	var parts []string
	for _, l := range left[:min(len(left), maxLeftShown)] {
		parts = append(parts, fmt.Sprintf("%s: %s", l.Group, l.Why))
	}
	if more := len(left) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}

// drainCall is what one node asks of another, or of itself.
type drainCall struct {
	What string `json:"what"` // drain, undrain, status
	DrainOptions
}

// beginDrain has the node itself do what is asked, and returns how far it is.
func (n *Node) beginDrain(ctx context.Context, what string, o DrainOptions) (DrainInfo, error) {
	if len(o.Reason) > maxReasonBytes {
		return DrainInfo{}, partition.Errorf(partition.CodeTooLarge, "a reason of %d bytes, limit %d", len(o.Reason), maxReasonBytes)
	}
	c := drainCall{What: what, DrainOptions: o}
	if o.Node == "" || o.Node == n.ID() {
		return n.drainHere(ctx, c)
	}
	if !n.knows(o.Node) {
		return DrainInfo{}, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no node %q", o.Node), Next: "list them with: pando members"}
	}
	return callFor[DrainInfo](ctx, n, o.Node, callDrain, c)
}

// answered is the answer to a call together with the whole of its error: what to
// do about it is the operator's to read.
type answered[T any] struct {
	Info T                `json:"info"`
	Err  *partition.Error `json:"err,omitempty"`
}

// callFor asks another node for something that an operator waits for.
func callFor[T any](ctx context.Context, n *Node, to partition.NodeID, kind byte, ask any) (T, error) {
	a, err := askNode[answered[T]](ctx, n, to, kind, ask)
	if err == nil && a.Err != nil {
		err = a.Err
	}
	return a.Info, err
}

// answerFor is the other side of callFor.
func answerFor[T any](info T, err error) ([]byte, error) {
	a := answered[T]{Info: info}
	if err != nil {
		a.Err = asError(err)
	}
	return json.Marshal(a)
}

// serveDrain answers another node's drainCall.
func (n *Node) serveDrain(ctx context.Context, body []byte) ([]byte, error) {
	var c drainCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, partition.Errorf(partition.CodeInvalid, "a request to drain that cannot be read")
	}
	return answerFor(n.drainHere(ctx, c))
}

func (n *Node) drainHere(ctx context.Context, c drainCall) (DrainInfo, error) {
	now := n.service.now()
	switch {
	case c.What == "status":
	case now.Drain == placement.Stopping:
		return DrainInfo{}, partition.Errorf(partition.CodeClosed, "node %s is stopping", n.ID())
	case c.What == "undrain":
		n.logger.Info("node is taken back into service")
		if err := n.service.set(func(w *word) { *w = word{Seq: w.Seq} }); err != nil {
			return DrainInfo{}, err
		}
	case c.What == "drain":
		if !c.Force {
			if err := n.mayDrain(ctx); err != nil {
				return DrainInfo{}, err
			}
		}
		level := n.logger.Info
		if c.Force {
			level = n.logger.Warn // an operator overrides a check
		}
		level("node is drained", "reason", c.Reason, "force", c.Force)
		if err := n.service.set(func(w *word) {
			*w = word{Seq: w.Seq, Drain: placement.Maintenance, Force: c.Force, Reason: c.Reason}
		}); err != nil {
			return DrainInfo{}, err
		}
	default:
		return DrainInfo{}, partition.Errorf(partition.CodeInvalid, "%.20q is nothing to do with a drain", c.What)
	}
	return n.drainInfo(), nil
}

// mayDrain refuses a drain with which partitions could not commit any more.
func (n *Node) mayDrain(ctx context.Context) error {
	var groups []partition.GroupID
	n.cells.each(func(c *cell) { groups = append(groups, c.group) })
	left := n.asker.ask(ctx, groups, word{Drain: placement.Maintenance}, true)
	left = slices.DeleteFunc(left, func(l DrainLeft) bool { return l.Working })
	if len(left) == 0 {
		return nil
	}
	return &partition.Error{
		Code: partition.CodeRefused, Why: fmt.Sprintf("node %s cannot be drained as things are: %s", n.ID(), leftText(left)),
		Next: "bring the other members back first (pando partition show), or override with --force",
	}
}

// drainInfo describes this node's service.
func (n *Node) drainInfo() DrainInfo {
	w := n.service.now()
	info := DrainInfo{Node: n.ID(), Mode: w.mode(), Reason: w.Reason}
	n.cells.each(func(*cell) { info.Replicas++ })
	info.Left, info.Done = n.asker.left(w)
	return info
}

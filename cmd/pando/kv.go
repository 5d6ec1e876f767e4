package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

func (c *cli) kvCommand() *cobra.Command {
	return group("kv", "Read and write single keys of a key-value table", c.kvGet(), c.kvPut(), c.kvDelete(), c.kvScan())
}

func encodingFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "encoding", "text", "how keys are given: text, hex or base64")
	must(cmd.RegisterFlagCompletionFunc("encoding", cobra.FixedCompletions([]string{"text", "hex", "base64"}, cobra.ShellCompDirectiveNoFileComp)))
}

// decodeKey reads a key as the command line gives it.
func decodeKey(encoding, s string) (key []byte, err error) {
	switch encoding {
	case "text":
		return []byte(s), nil
	case "hex":
		key, err = hex.DecodeString(s)
	case "base64":
		key, err = base64.StdEncoding.DecodeString(s)
	default:
		return nil, &usageError{fmt.Errorf("encoding %q is neither text, hex nor base64", encoding)}
	}
	if err != nil {
		return nil, invalid("", "key %q is not %s: %v", s, encoding, err)
	}
	return key, nil
}

// kvSeen is what all kv commands have in common: which state an answer shows.
type kvSeen struct {
	verbose bool
	token   string
}

func (k *kvSeen) flags(cmd *cobra.Command, token string) {
	f := cmd.Flags()
	f.BoolVarP(&k.verbose, "verbose", "v", false, "say on the standard error which state the answer shows, and its token")
	f.StringVar(&k.token, "token", "", token)
}

// shown is which state an answer shows, as JSON.
type shown struct {
	Token string            `json:"token,omitempty"`
	Group partition.GroupID `json:"group,omitzero"`
	Index partition.Index   `json:"index,omitempty"`
	Age   *float64          `json:"age_seconds,omitempty"` // at most; absent: not known
}

func shownOf(s httpapi.Shown) shown {
	x := shown{Token: s.Token.String()}
	if s.Group != 0 {
		x.Group, x.Index = s.Group, s.Index
	}
	if s.AgeKnown {
		age := s.Age.Seconds()
		x.Age = &age
	}
	return x
}

// tell prints what an answer shows if that was asked for.
func (k *kvSeen) tell(w io.Writer, s httpapi.Shown, read bool) {
	if !k.verbose {
		return
	}
	var parts []string
	if s.Group != 0 {
		parts = append(parts, fmt.Sprintf("record %d of partition %s", s.Index, s.Group))
	}
	switch {
	case read && s.AgeKnown:
		parts = append(parts, fmt.Sprintf("at most %s old", s.Age))
	case read:
		parts = append(parts, "age not known")
	}
	if t := s.Token.String(); t != "" {
		parts = append(parts, "token "+t)
	}
	fmt.Fprintln(w, strings.Join(parts, ", "))
}

// kvRead is what get and scan have in common.
type kvRead struct {
	kvSeen
	level, encoding string
	maxAge          time.Duration
	minIndex        uint64
}

const readLevels = `Levels of reads:
  lease    linearizable; the master answers alone while its lease holds (default)
  quorum   linearizable whatever the clocks do; one round trip between nodes
  session  not older than --token, which writes and reads print with -v; any replica
  stale    an earlier state of any replica, bounded by --max-age and --min-index`

func (k *kvRead) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.level, "level", "", "lease (default), quorum, session (default with --token) or stale")
	f.DurationVar(&k.maxAge, "max-age", 0, "with --level stale: a state that was the newest so long ago at most")
	f.Uint64Var(&k.minIndex, "min-index", 0, "with --level stale: a state with at least this record of the partition")
	k.kvSeen.flags(cmd, "show nothing older than what this token saw (see -v)")
	encodingFlag(cmd, &k.encoding)
	levels := []string{"lease", "quorum", "session", "stale"}
	must(cmd.RegisterFlagCompletionFunc("level", cobra.FixedCompletions(levels, cobra.ShellCompDirectiveNoFileComp)))
}

// options are the flags as a request carries them.
func (k *kvRead) options() (httpapi.ReadOptions, error) {
	o := httpapi.ReadOptions{Level: httpapi.Level(k.level), MinIndex: partition.Index(k.minIndex), MaxAge: k.maxAge}
	if k.maxAge < 0 {
		return o, &usageError{fmt.Errorf("--max-age %s is negative", k.maxAge)}
	}
	var err error
	o.Token, err = client.ParseToken(k.token)
	if k.token != "" && k.level == "" {
		o.Level = httpapi.LevelSession
	}
	return o, err
}

func (c *cli) kvGet() *cobra.Command {
	var k kvRead
	var raw bool
	cmd := &cobra.Command{
		Use: "get <table> <key>", Short: "Print the value of a key", Args: cobra.ExactArgs(2),
		Long: "Prints the value of a key.\n\n" + readLevels,
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			key, err := decodeKey(k.encoding, args[1])
			if err != nil {
				return err
			}
			o, err := k.options()
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd)
			defer cancel()
			v, err := api.Get(ctx, args[0], key, o)
			if err != nil {
				return err
			}
			k.tell(c.err, v.Shown, true)
			if raw {
				_, err := c.out.Write(v.Bytes)
				return err
			}
			answer := struct {
				httpapi.Pair
				shown
			}{httpapi.NewPair(key, v.Bytes, v.Version), shownOf(v.Shown)}
			return c.show(answer, func(io.Writer) { fmt.Fprintf(c.out, "%s\n", v.Bytes) })
		}),
	}
	k.flags(cmd)
	cmd.Flags().BoolVar(&raw, "raw", false, "print the value's bytes and nothing else, not even a line end")
	return cmd
}

// kvWrite is what put and delete have in common.
type kvWrite struct {
	kvSeen
	encoding, version string
	absent            bool
}

const writeToken = "a token that the printed one is to cover as well (see -v)"

// join is what the write shows, with the token that covers the given one.
func (k *kvWrite) join(s httpapi.Shown, given client.Token) httpapi.Shown {
	s.Token = s.Token.Join(given)
	return s
}

func (k *kvWrite) condition() httpapi.Condition {
	return httpapi.Condition{Version: httpapi.Version(k.version), Absent: k.absent}
}

func (c *cli) kvPut() *cobra.Command {
	var k kvWrite
	var file string
	cmd := &cobra.Command{
		Use: "put <table> <key> [value]", Short: "Store a value under a key", Args: cobra.RangeArgs(2, 3),
		Long:    "Stores a value, given as the third argument or as a file (- is the standard input).",
		Example: "  pando kv put demo hello world\n  pando kv put demo hello --file - <greeting.txt",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			key, err := decodeKey(k.encoding, args[1])
			if err != nil {
				return err
			}
			value, err := c.putValue(args[2:], file)
			if err != nil {
				return err
			}
			given, err := client.ParseToken(k.token)
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd)
			defer cancel()
			put, err := api.Put(ctx, args[0], key, value, k.condition())
			if err != nil {
				return err
			}
			s := k.join(put.Shown, given)
			k.tell(c.err, s, false)
			answer := struct {
				Version httpapi.Version `json:"version"`
				shown
			}{put.Version, shownOf(s)}
			return c.show(answer, func(w io.Writer) { fmt.Fprintln(w, "stored") })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "read the value from a file; - is the standard input")
	f.StringVar(&k.version, "if-version", "", "only if the key has this version (see kv get -o json)")
	f.BoolVar(&k.absent, "if-absent", false, "only if the key does not exist")
	k.kvSeen.flags(cmd, writeToken)
	encodingFlag(cmd, &k.encoding)
	return cmd
}

// maxPutBytes bounds what is read for one value; the table's own limit is lower.
const maxPutBytes = 16 << 20

func (c *cli) putValue(args []string, file string) ([]byte, error) {
	switch {
	case len(args) == 1 && file != "":
		return nil, &usageError{fmt.Errorf("a value and --file are given")}
	case len(args) == 1:
		return []byte(args[0]), nil
	case file == "":
		return nil, &usageError{fmt.Errorf("no value is given: add it, or --file")}
	}
	in := c.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	value, err := io.ReadAll(io.LimitReader(in, maxPutBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	if len(value) > maxPutBytes {
		return nil, partition.Errorf(partition.CodeTooLarge, "the value is longer than %d bytes", maxPutBytes)
	}
	return value, nil
}

func (c *cli) kvDelete() *cobra.Command {
	var k kvWrite
	cmd := &cobra.Command{
		Use: "delete <table> <key>", Short: "Delete a key", Args: cobra.ExactArgs(2),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			key, err := decodeKey(k.encoding, args[1])
			if err != nil {
				return err
			}
			given, err := client.ParseToken(k.token)
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd)
			defer cancel()
			s, err := api.Delete(ctx, args[0], key, k.condition())
			if err != nil {
				return err
			}
			s = k.join(s, given)
			k.tell(c.err, s, false)
			answer := struct {
				Deleted bool `json:"deleted"`
				shown
			}{true, shownOf(s)}
			return c.show(answer, func(w io.Writer) { fmt.Fprintln(w, "deleted") })
		}),
	}
	cmd.Flags().StringVar(&k.version, "if-version", "", "only if the key has this version (see kv get -o json)")
	k.kvSeen.flags(cmd, writeToken)
	encodingFlag(cmd, &k.encoding)
	return cmd
}

func (c *cli) kvScan() *cobra.Command {
	var k kvRead
	var lo, hi, prefix string
	var limit int
	cmd := &cobra.Command{
		Use: "scan <table>", Short: "Print the pairs of a range in key order", Args: cobra.ExactArgs(1),
		Long: "Prints the pairs of a range in key order.\n\n" + readLevels,
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			r, err := scanRange(k.encoding, lo, hi, prefix)
			if err != nil {
				return err
			}
			if limit < 1 {
				return &usageError{fmt.Errorf("limit %d is not positive", limit)}
			}
			o, err := k.options()
			if err != nil {
				return err
			}
			pairs, shown, err := c.scan(cmd, api, args[0], r, limit, o)
			if err != nil {
				return err
			}
			k.tell(c.err, shown, true)
			return c.show(pairs, func(w io.Writer) {
				for _, p := range pairs {
					row(c.out, printable(p.KeyBytes()), printable(p.ValueBytes()))
				}
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&lo, "lo", "", "first key")
	f.StringVar(&hi, "hi", "", "first key behind the range")
	f.StringVar(&prefix, "prefix", "", "keys that begin with this")
	f.IntVar(&limit, "limit", 100, "at most so many pairs")
	k.flags(cmd)
	return cmd
}

func scanRange(encoding, lo, hi, prefix string) (r partition.KeyRange, err error) {
	if prefix != "" {
		if lo != "" || hi != "" {
			return r, &usageError{fmt.Errorf("--prefix together with --lo or --hi")}
		}
		p, err := decodeKey(encoding, prefix)
		return httpapi.PrefixRange(p), err
	}
	if r.Lo, err = decodeKey(encoding, lo); err != nil {
		return r, err
	}
	r.Hi, err = decodeKey(encoding, hi)
	return r, err
}

// scan reads pages until the limit; every page has --timeout of its own. At level
// session no page is older than the ones before.
func (c *cli) scan(cmd *cobra.Command, api *httpapi.Client, table string, r partition.KeyRange, limit int, o httpapi.ReadOptions) ([]httpapi.Pair, httpapi.Shown, error) {
	pairs, cursor, shown := []httpapi.Pair{}, "", httpapi.Shown{}
	for len(pairs) < limit {
		ctx, cancel := c.within(cmd)
		page, err := api.Scan(ctx, table, r, limit-len(pairs), cursor, o)
		cancel()
		if err != nil {
			return nil, shown, err
		}
		if shown = shown.Oldest(page.Shown); o.Level == httpapi.LevelSession {
			o.Token = shown.Token
		}
		pairs = append(pairs, page.Pairs...)
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	return pairs, shown, nil
}

func isNotFound(err error) bool { return partition.CodeOf(err) == partition.CodeNotFound }

package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

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

// kvRead is what get and scan have in common.
type kvRead struct{ level, encoding string }

func (k *kvRead) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.level, "level", "lease", "lease, or quorum to not rely on clocks; both are linearizable")
	encodingFlag(cmd, &k.encoding)
}

func (c *cli) kvGet() *cobra.Command {
	var k kvRead
	var raw bool
	cmd := &cobra.Command{
		Use: "get <table> <key>", Short: "Print the value of a key", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := decodeKey(k.encoding, args[1])
			if err != nil {
				return err
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd)
			defer cancel()
			v, err := api.Get(ctx, args[0], key, httpapi.Level(k.level))
			if err != nil {
				return err
			}
			if raw {
				_, err := c.out.Write(v.Bytes)
				return err
			}
			return c.show(httpapi.NewPair(key, v.Bytes, v.Version), func(io.Writer) { fmt.Fprintf(c.out, "%s\n", v.Bytes) })
		},
	}
	k.flags(cmd)
	cmd.Flags().BoolVar(&raw, "raw", false, "print the value's bytes and nothing else, not even a line end")
	return cmd
}

// kvWrite is what put and delete have in common.
type kvWrite struct {
	encoding, version string
	absent            bool
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
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := decodeKey(k.encoding, args[1])
			if err != nil {
				return err
			}
			value, err := c.putValue(args[2:], file)
			if err != nil {
				return err
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd)
			defer cancel()
			v, err := api.Put(ctx, args[0], key, value, k.condition())
			if err != nil {
				return err
			}
			return c.show(map[string]httpapi.Version{"version": v}, func(w io.Writer) { fmt.Fprintln(w, "stored") })
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "read the value from a file; - is the standard input")
	f.StringVar(&k.version, "if-version", "", "only if the key has this version (see kv get -o json)")
	f.BoolVar(&k.absent, "if-absent", false, "only if the key does not exist")
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
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := decodeKey(k.encoding, args[1])
			if err != nil {
				return err
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd)
			defer cancel()
			if err := api.Delete(ctx, args[0], key, k.condition()); err != nil {
				return err
			}
			return c.show(map[string]bool{"deleted": true}, func(w io.Writer) { fmt.Fprintln(w, "deleted") })
		},
	}
	cmd.Flags().StringVar(&k.version, "if-version", "", "only if the key has this version (see kv get -o json)")
	encodingFlag(cmd, &k.encoding)
	return cmd
}

func (c *cli) kvScan() *cobra.Command {
	var k kvRead
	var lo, hi, prefix string
	var limit int
	cmd := &cobra.Command{
		Use: "scan <table>", Short: "Print the pairs of a range in key order", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := scanRange(k.encoding, lo, hi, prefix)
			if err != nil {
				return err
			}
			if limit < 1 {
				return &usageError{fmt.Errorf("limit %d is not positive", limit)}
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			pairs, err := c.scan(cmd, api, args[0], r, limit, httpapi.Level(k.level))
			if err != nil {
				return err
			}
			return c.show(pairs, func(w io.Writer) {
				for _, p := range pairs {
					row(c.out, printable(p.KeyBytes()), printable(p.ValueBytes()))
				}
			})
		},
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

// scan reads pages until the limit; every page has --timeout of its own.
func (c *cli) scan(cmd *cobra.Command, api *httpapi.Client, table string, r partition.KeyRange, limit int, level httpapi.Level) ([]httpapi.Pair, error) {
	pairs, cursor := []httpapi.Pair{}, ""
	for len(pairs) < limit {
		ctx, cancel := c.within(cmd)
		page, err := api.Scan(ctx, table, r, limit-len(pairs), cursor, level)
		cancel()
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, page.Pairs...)
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	return pairs, nil
}

func isNotFound(err error) bool { return partition.CodeOf(err) == partition.CodeNotFound }

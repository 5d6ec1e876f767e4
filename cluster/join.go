package cluster

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"pando.dev/pando/cluster/internal/stamp"
	"pando.dev/pando/partition"
)

const (
	peersFile   = "PEERS"
	peersFormat = 1
	// MaxJoinAddresses bounds the addresses tried in one attempt to join, the
	// remembered ones among them.
	MaxJoinAddresses = 64
	// maxJoinFileBytes bounds a file of addresses.
	maxJoinFileBytes = 64 << 10
	// fileProvider begins a provider that is a file of addresses.
	fileProvider = "file:"
)

// resolveProviders returns the addresses that the providers name now: an
// address itself, or the lines of a file, which is read again each time. A
// provider that fails does not keep the others from being used.
func resolveProviders(providers []string) (addresses []string, err error) {
	var failures []error
	for _, p := range providers {
		if path, ok := strings.CutPrefix(p, fileProvider); ok {
			lines, err := readAddresses(path)
			failures = append(failures, err)
			addresses = append(addresses, lines...)
			continue
		}
		if err := checkAddress(p); err != nil {
			failures = append(failures, err)
			continue
		}
		addresses = append(addresses, p)
	}
	return addresses[:min(len(addresses), MaxJoinAddresses)], errors.Join(failures...)
}

// readAddresses reads one address per line; empty lines and those that begin
// with # do not count.
func readAddresses(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &partition.Error{
			Code: partition.CodeNotFound, Why: fmt.Sprintf("join file: %v", err),
			Next: "write the gossip addresses of other nodes into it, one host:port a line; it is read again at every attempt",
		}
	}
	defer f.Close()
	var all []string
	var failures []error
	lines := bufio.NewScanner(io.LimitReader(f, maxJoinFileBytes))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := checkAddress(line); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", path, err))
			continue
		}
		all = append(all, line)
	}
	return all, errors.Join(append(failures, lines.Err())...)
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || port == "" {
		return partition.Errorf(partition.CodeInvalid, "join address %.80q is not host:port", a)
	}
	return nil
}

// rememberPeers writes down where others were seen alive, for the next start.
func rememberPeers(dir string, addresses []string) error {
	addresses = slices.Sorted(slices.Values(addresses))
	addresses = addresses[:min(len(addresses), MaxJoinAddresses)]
	return stamp.Write(filepath.Join(dir, peersFile), peersFormat, []byte(strings.Join(addresses, "\n")))
}

// RememberedPeers returns the gossip addresses at which other nodes were alive
// when this node ran last.
func RememberedPeers(dir string) ([]string, error) {
	b, err := stamp.Read(filepath.Join(dir, peersFile), peersFormat)
	if stamp.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); checkAddress(line) == nil && len(all) < MaxJoinAddresses {
			all = append(all, line)
		}
	}
	return all, nil
}

// KeyBytes is the size of a gossip key.
const KeyBytes = 32

// ReadKey reads a gossip key: a file of 64 hexadecimal digits, or of the 32
// bytes themselves, that nobody but its owner may read.
func ReadKey(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("read the gossip key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, 4*KeyBytes))
	}
	if err != nil {
		return nil, fmt.Errorf("read the gossip key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("the gossip key %s may be read by others (mode %o)", path, info.Mode().Perm()),
			Next: "chmod 600 " + path,
		}
	}
	return parseKey(path, b)
}

func parseKey(path string, b []byte) ([]byte, error) {
	if len(b) == KeyBytes {
		return b, nil
	}
	key := make([]byte, KeyBytes)
	text := strings.TrimSpace(string(b))
	if len(text) == 2*KeyBytes {
		if n, err := hex.Decode(key, []byte(text)); err == nil && n == KeyBytes {
			return key, nil
		}
	}
	return nil, &partition.Error{
		Code: partition.CodeInvalid, Why: fmt.Sprintf("the gossip key %s has %d bytes", path, len(b)),
		Next: fmt.Sprintf("it must hold %d hexadecimal digits, for instance from: openssl rand -hex %d", 2*KeyBytes, KeyBytes),
	}
}

package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/partition"
)

// security is how a node's front door is secured; the zero value is open, and
// for loopback only.
type security struct {
	tls       *tls.Config
	authorize func(*http.Request, cert.Role) error
}

// nodeSecurity secures with the certificates of a directory; "" does not.
func nodeSecurity(dir string, logger *slog.Logger) (security, error) {
	if dir == "" {
		return security{}, nil
	}
	files, err := cert.Open(dir, logger, nil)
	if err != nil {
		return security{}, err
	}
	return security{httpapi.ServerTLS(files), httpapi.AuthorizeCertificates(files)}, nil
}

// clientTLS is for HTTP with a node; which one answers does not matter.
func clientTLS(dir string) (*tls.Config, error) {
	files, err := cert.Open(dir, nil, nil)
	if err != nil {
		return nil, err
	}
	return files.Client(""), nil
}

// linkTLS is for the binary protocol.
func linkTLS(dir string) (link.TLS, error) { return cert.Open(dir, nil, nil) }

func (c *cli) certCommand() *cobra.Command {
	return group("cert", "Make certificates and the gossip key", c.certCA(), c.certNode(), c.certClient(), c.certGossipKey())
}

// certReport says what was made.
type certReport struct {
	Dir     string     `json:"dir"`
	Name    string     `json:"name,omitempty"`
	Role    string     `json:"role,omitempty"`
	Cluster string     `json:"cluster,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
}

func (c *cli) certCA() *cobra.Command {
	var dir, cluster string
	var valid time.Duration
	cmd := &cobra.Command{
		Use: "ca", Short: "Make the authority of a cluster", Args: cobra.NoArgs,
		Long:    "Makes an authority, which signs the certificates of nodes and clients. Its key,\n" + cert.CAKeyFile + ", belongs on no node: keep it where certificates are made.",
		Example: "  pando cert ca --ca ca --cluster pando",
		RunE: func(*cobra.Command, []string) error {
			a, err := cert.NewAuthority(cluster, valid, nil)
			if err != nil {
				return err
			}
			if err := a.Write(dir); err != nil {
				return err
			}
			return c.show(certReport{Dir: dir, Cluster: cluster}, func(w io.Writer) {
				fmt.Fprintf(w, "authority of cluster %s is in %s\n", cluster, dir)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "ca", "ca", "directory for the authority")
	f.StringVar(&cluster, "cluster", "pando", "name of the cluster")
	f.DurationVar(&valid, "valid", cert.DefaultAuthorityValid, "how long it holds")
	return cmd
}

// issue is what making a node's and a client's certificate have in common.
type issue struct {
	ca, out string
	valid   time.Duration
}

func (i *issue) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&i.ca, "ca", "ca", "directory of the authority")
	f.StringVar(&i.out, "out", "", "directory for the certificate (required)")
	f.DurationVar(&i.valid, "valid", cert.DefaultValid, "how long it holds")
}

func (c *cli) issue(i issue, a *cert.Authority, name string, role cert.Role) error {
	if i.out == "" {
		return &usageError{errors.New("no directory for the certificate is given: --out")}
	}
	id, err := a.Issue(name, role, i.valid)
	if err != nil {
		return err
	}
	if err := id.Write(i.out); err != nil {
		return err
	}
	files, err := cert.Open(i.out, nil, nil)
	if err != nil {
		return err
	}
	expires := files.Expires()
	return c.show(certReport{i.out, name, string(role), a.Cluster(), &expires}, func(w io.Writer) {
		fmt.Fprintf(w, "certificate of %s %s is in %s, until %s\n", role, name, i.out, expires.Format(time.DateOnly))
	})
}

// openAuthority opens the authority, and says how to make one if there is none.
func openAuthority(dir string) (*cert.Authority, error) {
	a, err := cert.OpenAuthority(dir)
	if errors.Is(err, partition.ErrNotFound) {
		return nil, &partition.Error{Code: partition.CodeNotFound, Why: "there is no authority in " + dir, Next: "make one with: pando cert ca --ca " + dir}
	}
	return a, err
}

func (c *cli) certNode() *cobra.Command {
	var i issue
	var dir, id string
	cmd := &cobra.Command{
		Use: "node", Short: "Make the certificate of a node", Args: cobra.NoArgs,
		Long: "Makes a certificate that names the node whose data directory is given. If the node\n" +
			"never ran, its id is minted into the directory. Start it with --tls-dir then. With\n" +
			"--id alone no directory is looked at, as for the next certificate of a running node.",
		Example: "  pando cert node --dir d1 --out d1-tls\n  pando node --dir d1 --tls-dir d1-tls\n" +
			"  pando cert node --id n-3npr3erf1j --out d1-tls",
		RunE: func(*cobra.Command, []string) error {
			if dir == "" && id == "" {
				return &usageError{errors.New("neither a data directory nor an id is given: --dir or --id")}
			}
			a, err := openAuthority(i.ca)
			if err != nil {
				return err
			}
			node := partition.NodeID(id)
			if dir != "" {
				if node, err = actors.MintIdentity(dir, a.Cluster(), node); err != nil {
					return err
				}
			}
			return c.issue(i, a, string(node), cert.Node)
		},
	}
	i.flags(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "data directory of the node")
	cmd.Flags().StringVar(&id, "id", "", "node id, if there is none in the directory, instead of a minted one")
	return cmd
}

func (c *cli) certClient() *cobra.Command {
	var i issue
	var name, role string
	cmd := &cobra.Command{
		Use: "client", Short: "Make the certificate of a client or an admin", Args: cobra.NoArgs,
		Long:    "A client may ask, and read and write tables; an admin may also create and drop them.",
		Example: "  pando cert client --name ann --role admin --out ann-tls\n  pando status --tls-dir ann-tls",
		RunE: func(*cobra.Command, []string) error {
			if role != string(cert.Client) && role != string(cert.Admin) {
				return &usageError{fmt.Errorf("role %q is neither client nor admin", role)}
			}
			if name == "" {
				return &usageError{errors.New("no name is given: --name")}
			}
			a, err := openAuthority(i.ca)
			if err != nil {
				return err
			}
			return c.issue(i, a, name, cert.Role(role))
		},
	}
	i.flags(cmd)
	cmd.Flags().StringVar(&name, "name", "", "whose it is (required)")
	cmd.Flags().StringVar(&role, "role", string(cert.Client), "client or admin")
	return cmd
}

// gossipKeyBytes is the size of the key of AES-256.
const gossipKeyBytes = 32

func (c *cli) certGossipKey() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "gossip-key", Short: "Make the key that all nodes of a cluster gossip with", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			key := make([]byte, gossipKeyBytes)
			rand.Read(key) // never fails
			if err := writeSecret(out, hex.EncodeToString(key)+"\n"); err != nil {
				return err
			}
			return c.show(map[string]string{"file": out}, func(w io.Writer) {
				fmt.Fprintf(w, "gossip key is in %s; every node wants the same\n", out)
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "gossip.key", "file for the key")
	return cmd
}

// writeSecret writes a new file that only its owner may read.
func writeSecret(name, text string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &partition.Error{Code: partition.CodeExists, Why: name + " is there already", Next: "use it, or give another file with --out"}
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

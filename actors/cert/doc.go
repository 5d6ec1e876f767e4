// Package cert makes and loads the certificates of a cluster.
//
// One authority per cluster signs a certificate for each node and each client.
// A node's certificate names the node id, not a host: addresses may change, and
// what a peer proves is who it is. Its role (node, client or admin) is part of
// the certificate, and each role gets only the key usages it needs, so a
// client's certificate can not pose as a node.
//
// [Files] loads certificates from a directory, verifies the other side against
// the authorities found there (two during a rotation), and notices when the
// files change.
package cert

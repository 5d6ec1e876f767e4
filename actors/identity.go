package actors

import (
	"pando.dev/pando/cluster"
	"pando.dev/pando/partition"
)

// MintIdentity returns the id of the node whose data is in dir. If there is none
// yet it is made: id if that is not empty, a minted one otherwise. It is for
// what must know the node before its first start, such as its certificate; the
// node must not be running. An empty cluster name is filled in at that start.
func MintIdentity(dir, clusterName string, id partition.NodeID) (partition.NodeID, error) {
	held, err := cluster.OpenIdentity(dir, cluster.IdentityOptions{Cluster: clusterName, Node: id, MintOnly: true})
	if err != nil {
		return "", err
	}
	return held.Node, held.Close()
}

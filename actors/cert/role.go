package cert

// Role is what the owner of a certificate may do.
type Role string

const (
	// Node may open every kind of connection in the name of its node id.
	Node Role = "node"
	// Client may send requests; Admin also those that change the cluster.
	Client Role = "client"
	Admin  Role = "admin"
	// Local is who connects without a certificate. That is possible on loopback
	// only, where everybody may do everything; no certificate carries it.
	Local Role = "local"
)

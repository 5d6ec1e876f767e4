// Package httpapi is a node's HTTP front door: the same questions and changes
// that the command line offers, health for supervisors, and metrics.
//
//	GET    /livez                              200 while the process answers
//	GET    /readyz                             200 when the node serves, else 503 and the reason
//	GET    /metrics                            Prometheus text
//	GET    /api/v1/status                      how many more failures can be taken, and why
//	GET    /api/v1/members                     the nodes as this one sees them
//	GET    /api/v1/anomalies                   what limps around this one, and what was done about it
//	GET    /api/v1/partitions[?table=t]        every partition
//	GET    /api/v1/partitions/{group}          one partition ("g17" or "17")
//	POST   /api/v1/partitions/{group}/change   add, remove or replace a replica, hand over (admin)
//	GET    /api/v1/partitions/{group}/history  its epochs, members and splits, as far as kept
//	POST   /api/v1/moves                       bring a replica from one node to another (admin)
//	GET    /api/v1/nodes                       the nodes and what they hold
//	GET    /api/v1/explain/{what}/{id}         why a partition, node or task is as it is
//	GET    /api/v1/check                       what is not as it should be
//	GET    /api/v1/nodes/{node}/drain          whether a node is in service, and how far that is
//	POST   /api/v1/nodes/{node}/drain          take a node out of service (admin)
//	DELETE /api/v1/nodes/{node}/drain          take it back (admin)
//	POST   /api/v1/nodes/{node}/decommission   empty a node (admin)
//	DELETE /api/v1/nodes/{node}/decommission   take it back (admin)
//	GET    /api/v1/tasks                       structural changes, also those that ended lately
//	DELETE /api/v1/tasks/{task}?why=           have one given up (admin)
//	POST   /api/v1/plans                       plan what brings the cluster into balance (admin)
//	POST   /api/v1/plans/{task}/apply          have a plan carried out (admin)
//	POST   /api/v1/merge                       have a partition absorb the one behind it (admin); /plan, /{task}
//	POST   /api/v1/verify                      compare replicas, check their files (admin)
//	GET    /api/v1/tables                      the catalog's tables
//	POST   /api/v1/tables                      create a table (admin)
//	PATCH  /api/v1/tables/{table}              alter a table: replicas, policy (admin)
//	DELETE /api/v1/tables/{table}              drop a table (admin)
//	GET    /api/v1/recover                     what would bring lost partitions back: partitions, dead
//	POST   /api/v1/recover                     apply such a plan (admin)
//	GET    /api/v1/kv/{table}                  scan: lo, hi, prefix, limit, cursor
//	GET    /api/v1/kv/{table}/{key}            one value, raw or as JSON
//	PUT    /api/v1/kv/{table}/{key}            store the body
//	DELETE /api/v1/kv/{table}/{key}            delete the key
//	GET    /debug/pprof/                       profiles, only if switched on (admin)
//
// A key that is not plain text is given as ?key64= in base64 (URL alphabet,
// padding optional) and without the last path element. Every value has a version, given as ETag; If-Match
// and If-None-Match: * (or ?if_version= and ?if_absent=true) make a write
// conditional, and a condition that does not hold is 412. Every request has a
// deadline (?timeout=5s, bounded). Everything that is not a success has a JSON
// body with code, why and next.
//
// Reads take ?level=lease (the default), quorum, session or stale. A session read
// shows nothing older than its token (the header Pando-Token, or ?token=), a
// stale one takes ?max_age=2s and ?min_index=17. Every answer of kv, of a write
// as well, tells in headers what it shows: Pando-Group and Pando-Index, the
// partition and its record (of a scan over several, neither); Pando-Age, how old
// it is at most, if that is known; and Pando-Token, for later reads, which covers
// the request's own token. A replica that is too far behind is answered 503,
// "behind", when no other could serve in time.
//
// The package holds both sides: [New] makes the handler, [Listen] the server
// around it, and [Client] asks any of several nodes.
//
// With certificates, everything but /livez and /readyz wants a client
// certificate: role client for reading and key-value access, role admin for
// changes of the catalog. Without them a [Server] listens on loopback only.
package httpapi

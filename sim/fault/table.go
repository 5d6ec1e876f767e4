package fault

type entry struct {
	name, about string
	arg         string // what Arg is; empty: unused
	on          Shape
	levels      Levels
}

const both = Simulator | Processes

// table describes every class. Nothing changes it.
var table = [Classes]entry{
	Kill:         {"kill", "the process ends at once; what it has written stays, and it is back after a while", "", OnNode, both},
	KillFast:     {"kill-fast", "the process ends at once and is back within 20 ms, before anybody noticed", "", OnNode, both},
	KillMany:     {"kill-many", "several processes end within milliseconds", "bits of nodes", OnWorld, both},
	PowerCut:     {"power-cut", "the machine loses its power: of what was not synced any part may survive", "", OnNode, both},
	PowerCutMany: {"power-cut-many", "several machines lose their power within milliseconds", "bits of nodes", OnWorld, both},
	Pause:        {"pause", "the process stops without knowing and finds everything that came meanwhile", "", OnNode, both},
	Freeze:       {"freeze", "the process stops for longer than its connections live, so what was sent meanwhile is lost", "", OnNode, both},
	Starve:       {"starve", "the process gets so little CPU that each step takes long", "microseconds per step", OnNode, both},
	Restart:      {"restart", "an orderly stop and start", "", OnNode, both},
	Rolling:      {"rolling", "one node after the other stops in order and starts again", "", OnWorld, both},
	Blink:        {"blink", "the master is cut off, and all who granted it a lease restart at once", "", OnNode, both},

	CutOneWay:  {"cut-one-way", "what one node sends to another is lost", "", OnLink, both},
	Cut:        {"cut", "two nodes do not reach each other", "", OnLink, both},
	Isolate:    {"isolate", "a node reaches nobody and nobody reaches it", "", OnNode, both},
	IsolateIn:  {"isolate-in", "a node hears nobody, but everybody hears it", "", OnNode, both},
	IsolateOut: {"isolate-out", "a node hears everybody, but nobody hears it", "", OnNode, both},
	Bridge:     {"bridge", "the others are two halves that only this node reaches both of", "bits of one half", OnNode, both},
	Halves:     {"halves", "two sets of nodes do not reach each other", "bits of one half", OnWorld, both},
	Ring:       {"ring", "each node reaches its two neighbours only", "", OnWorld, both},
	Flap:       {"flap", "a link breaks and heals again and again", "milliseconds per turn", OnLink, both},
	Clog:       {"clog", "a link holds everything back and delivers it at the end", "1: only to the node, 2: only from it", OnLink, both},
	Loss:       {"loss", "a link loses a share of the messages", "per mille", OnLink, both},
	Delay:      {"delay", "a link takes longer", "microseconds", OnLink, both},
	Duplicate:  {"duplicate", "a link delivers a share of the messages twice", "per mille", OnLink, both},
	Reorder:    {"reorder", "messages of a link overtake each other", "microseconds of jitter", OnLink, both},
	Replay:     {"replay", "messages of long ago come again", "how many", OnLink, both},
	Reset:      {"reset", "the connection breaks and what is under way is lost", "", OnLink, both},
	KindDrop:   {"kind-drop", "a link loses all messages of one kind", "number of the kind", OnLink, Simulator},
	Corrupt:    {"corrupt", "bits of a share of the messages are flipped on the way", "per mille", OnLink, both},

	DiskSlow:     {"disk-slow", "every sync takes longer", "milliseconds", OnNode, Simulator},
	DiskStall:    {"disk-stall", "no sync returns for a while", "", OnNode, both},
	DiskFull:     {"disk-full", "no space is left for a while", "", OnNode, both},
	DiskReadOnly: {"disk-read-only", "every write fails from now on", "", OnNode, both},
	SyncFail:     {"sync-fail", "one sync fails; what it was for may be lost, and the next one succeeds", "", OnNode, both},
	ReadFail:     {"read-fail", "reads of the log fail for a while", "", OnNode, Simulator},
	TornWrite:    {"torn-write", "the power goes in the middle of a write, of which some sectors survive", "", OnNode, both},
	FlipLog:      {"flip-log", "a bit of the log flips while the node is down; for no time: some flip while it runs", "where", OnNode, both},
	FlipState:    {"flip-state", "a bit of a replica's state flips while the node is down", "where", OnNode, both},
	FlipIdentity: {"flip-identity", "a bit of the node's identity flips while it is down", "where", OnNode, both},
	Misdirect:    {"misdirect", "a write of the log lands where another one was, with a valid checksum", "where", OnNode, both},
	LostWrite:    {"lost-write", "a synced write of the log never reached the disk", "where", OnNode, both},
	LyingSync:    {"lying-sync", "syncs succeed and do nothing; a power cut follows", "", OnNode, Simulator},
	CutFile:      {"cut-file", "the end of a file of the log is missing after a restart", "where", OnNode, both},
	RollBack:     {"roll-back", "the node comes back with its disk as it was some time ago", "milliseconds", OnNode, both},
	Wipe:         {"wipe", "the node comes back with an empty disk", "", OnNode, both},
	SwapDisks:    {"swap-disks", "two nodes come back with each other's disk", "", OnLink, both},

	ClockStep:   {"clock-step", "the wall clock jumps, ahead or back", "milliseconds, as a signed number", OnNode, Simulator},
	ClockJump:   {"clock-jump", "the monotonic clock jumps ahead, as after a sleep of the machine", "milliseconds", OnNode, Simulator},
	ClockDrift:  {"clock-drift", "the clock runs fast or slow", "parts per million, as a signed number", OnNode, Simulator},
	ClockStrobe: {"clock-strobe", "the wall clock jumps ahead and back again and again", "milliseconds", OnNode, Simulator},

	LockForgets: {"lock-forgets", "the lock service forgets every number it gave", "", OnWorld, Simulator},
	LockDoubles: {"lock-doubles", "the lock service gives one number to whoever asks", "", OnWorld, Simulator},
	LockRefuses: {"lock-refuses", "the lock service refuses", "", OnWorld, Simulator},
	LockSlow:    {"lock-slow", "the lock service takes long to answer", "milliseconds", OnWorld, Simulator},
	ControlDown: {"control-down", "the control group does not answer", "", OnWorld, both},
	GossipLies:  {"gossip-lies", "a node is told that another is down, or up, which is not true", "1: down, 0: up", OnLink, Simulator},
	GossipStorm: {"gossip-storm", "everybody is told that everybody is down", "", OnWorld, Simulator},

	Transfer:      {"transfer", "a mastership is handed over on request", "", OnLink, both},
	Resign:        {"resign", "a master is told to give up", "", OnNode, both},
	AddMember:     {"add-member", "a replica is added to a group", "ordinal of the group", OnNode, both},
	RemoveMember:  {"remove-member", "a replica is removed from a group", "ordinal of the group", OnNode, both},
	ReplaceMember: {"replace-member", "a replica is replaced by a new one elsewhere", "ordinal of the group", OnLink, both},
	ChangeMember:  {"change-member", "the kind, the weight or the right to lead of a member changes", "ordinal of the group", OnNode, Simulator},
	SetPolicy:     {"set-policy", "the durability policy of a group changes", "ordinal of the group", OnWorld, both},
	Drain:         {"drain", "a node is emptied for maintenance", "", OnNode, both},
	TruncateLog:   {"truncate-log", "a node drops the part of its log that its state has", "", OnNode, Simulator},
	Recover:       {"recover", "the members of a group that are down are given up, and the others lead on", "ordinal of the group", OnWorld, Simulator},
}

package exhaust

// Named is a walk with a name.
type Named struct {
	Name   string
	About  string
	Config Config
}

// Walks are the walks that are gone before a release, the short ones first. Together
// they have every budget at least once.
func Walks() []Named {
	quick := func(c Config) Config {
		c.QuickHints, c.QuickLock, c.HealEvery = true, true, 200
		if c.Window == 0 {
			c.Window = 1
		}
		return c
	}
	disk := func(c Config) Config {
		c.QuickDisk = true
		return quick(c)
	}
	return []Named{
		{"crash", "one command, a crash, slow disks", quick(Config{Records: 1, Crashes: 1})},
		{"crash-two", "two commands and a crash", disk(Config{Records: 2, Crashes: 1})},
		{"crash-in-order", "one command, a crash, slow disks, two messages per link in their order", quick(Config{Records: 1, Crashes: 1, InOrder: true, Window: 2})},
		{"crash-disks", "two commands, a crash, slow disks", quick(Config{Records: 2, Crashes: 1})},
		{"crashes", "one command and two crashes", disk(Config{Records: 1, Crashes: 2})},
		{"deserted", "a second master beside the first, reads of both", quick(Config{Start: Deserted, Records: 1, Reads: 1})},
		{"deserted-disk", "two commands, a read and an alarm", disk(Config{Start: Deserted, Records: 2, Reads: 1, Alarms: 1})},
		{"deserted-crash", "a second master, and a crash", quick(Config{Start: Deserted, Records: 1, Crashes: 1})},
		{"cold", "three replicas look for a master", disk(Config{Start: Cold, Records: 1, Alarms: 3})},
		{"parted", "logs that differ are brought in line", disk(Config{Start: Parted, Records: -1, Alarms: 3, Crashes: 1, OneRecord: true})},
		{"figure-8", "a record of an old epoch reaches most, and its master crashes", disk(Config{Start: Parted, Records: -1, Alarms: 3, AlarmOf: 0b011, Crashes: 1, CrashOf: 0b001, OneRecord: true})},
		{"overtaken", "the longer log is not the newer one", disk(Config{Start: Overtaken, Records: -1, Alarms: 3, AlarmOf: 0b001})},
		{"forgotten", "a supporter crashes", quick(Config{Start: Deserted, Records: 1, Crashes: 1, CrashOf: 0b100})},
		{"transfer", "the mastership is handed over, under a command and a read", quick(Config{Records: 1, Reads: 1, Transfers: 1})},
		{"transfer-crash", "and somebody crashes", disk(Config{Records: 1, Transfers: 1, Crashes: 1})},
		{"change", "the group changes, under a command", quick(Config{Records: 1, Changes: 1})},
		{"change-deserted", "the group changes while there may be two masters", disk(Config{Start: Deserted, Records: 1, Changes: 1})},
		{"change-crash", "the group changes, and somebody crashes", disk(Config{Records: -1, Changes: 1, Crashes: 1})},
		{"change-twice", "the group changes twice, and one replica thinks that its master is gone", disk(Config{Records: -1, Changes: 2, Downs: 1})},
		{"leases", "a lease runs out while there is a second master", disk(Config{Start: Deserted, Records: 1, Leases: true, Alarms: 2, Grants: 1})},
		{"leases-read", "a quorum read while an old lease runs", disk(Config{Start: Deserted, Records: 1, Reads: 1, Leases: true, Alarms: 1, AlarmOf: 0b010})},
		{"old-lock", "the lock service repeats itself, and does not answer at once", Config{Start: Cold, Records: -1, Alarms: 3, AlarmOf: 0b011, OldLocks: 1, Refusals: 1, Window: 1, QuickDisk: true, QuickHints: true, HealEvery: 200}},
		{"retry", "a client asks again", disk(Config{Records: 1, Retries: 1, Crashes: 1})},
		{"slow-apply", "the state lags behind the log", disk(Config{Start: Deserted, Records: 1, Reads: 1, SlowApply: true})},
		{"resign", "a node is to stop", quick(Config{Records: 1, Resigns: 1})},
		{"reorder", "messages in any order, some twice", disk(Config{Records: 1, Crashes: 1, Repeats: 1, Window: 3})},
	}
}

//! The one table of what a host should have. `tuning/` is printed from it.

/// Where a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A file below `/proc/sys`; the line's name says which.
    Sysctl,
    /// A hard limit: of the installed unit, by its setting, or without one of this process.
    Limit {
        /// Its name in `/proc/self/limits`.
        own: &'static str,
        /// The unit's setting.
        unit: &'static str,
    },
    /// The chosen word (in brackets, or the only one) of a file.
    Word(&'static str),
    /// A file below each directory of `/sys/devices/system/cpu` whose name is `cpu` and a number.
    EachCpu(&'static str),
    /// The longest wake-up of a core that the kernel was asked for, in microseconds.
    WakeUp,
    /// Buckets of the kernel's table of connections.
    ConnectionTable,
    /// Connections that conntrack follows.
    Conntrack,
    /// Interrupts of network cards that may run on more than one core.
    NicIrqs,
}

/// What it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Not less than.
    AtLeast(u64),
    /// Not less than this for each core.
    AtLeastPerCore(u64),
    /// Not more than.
    AtMost(u64),
    /// Exactly these numbers or this word.
    Exactly(&'static str),
    /// One of these words; the first is set.
    OneOf(&'static [&'static str]),
    /// A range that reaches at least from and to.
    Range(u64, u64),
}

/// How it is put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// `tune apply` writes it, and keeps it in `/etc/sysctl.d`.
    Sysctl,
    /// `tune apply` writes it until the next boot.
    File,
    /// The service's unit sets it.
    Unit(&'static str),
    /// A script of `tuning/`.
    Script(&'static str),
    /// A unit of `systemd/` beside the node's.
    Service(&'static str),
    /// A parameter of the kernel's command line.
    Boot(&'static str),
}

/// One thing that is asked of a host.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The kernel's name of it.
    pub name: &'static str,
    /// Where it is read.
    pub probe: Probe,
    /// What it should be.
    pub want: Want,
    /// How it is put right.
    pub remedy: Remedy,
    /// Absent is as good: older or smaller kernels do without.
    pub optional: bool,
    /// Why.
    pub why: &'static str,
    /// What it changed when measured, or why that was not possible.
    pub effect: &'static str,
}

const fn sysctl(name: &'static str, want: Want, why: &'static str, effect: &'static str) -> Line {
    Line {
        name,
        probe: Probe::Sysctl,
        want,
        remedy: Remedy::Sysctl,
        optional: false,
        why,
        effect,
    }
}

const fn optional(line: Line) -> Line {
    Line { optional: true, ..line }
}

/// Everything, in the order of the output.
pub const LINES: &[Line] = &[
    optional(sysctl(
        "kernel.io_uring_disabled",
        Want::Exactly("0"),
        "Shards do all their work through io_uring; some distributions turn it off.",
        "with 1 or 2 no node starts",
    )),
    sysctl(
        "fs.nr_open",
        Want::AtLeast(1_048_576),
        "No limit of open files may be above it, and that limit bounds a ring's table of sockets.",
        "the kernel's default is as high; not measurable here",
    ),
    sysctl(
        "fs.file-max",
        Want::AtLeast(2_000_000),
        "Sockets in rings count as open files of the machine: a million drivers, and as many again in a reconnect storm.",
        "not measurable here: the default grows with memory and is above it from about 20 GiB",
    ),
    Line {
        name: "limit: open files",
        probe: Probe::Limit {
            own: "Max open files",
            unit: "LimitNOFILE",
        },
        want: Want::AtLeast(1_048_576),
        remedy: Remedy::Unit("LimitNOFILE=1048576"),
        optional: false,
        why: "A ring holds as many connections, less 512, and 131,072 at most; a shard of more takes more rings.",
        effect: "with 20,000 a ring takes 19,488 connections",
    },
    Line {
        name: "limit: locked memory",
        probe: Probe::Limit {
            own: "Max locked memory",
            unit: "LimitMEMLOCK",
        },
        want: Want::AtLeastPerCore(512 << 10),
        remedy: Remedy::Unit("LimitMEMLOCK=infinity"),
        optional: false,
        why: "Rings are locked memory, about half a megabyte for each shard; root needs no limit.",
        effect: "with 8 MiB 12 shards start and 16 do not",
    },
    sysctl(
        "net.core.somaxconn",
        Want::AtLeast(65_535),
        "Connections that wait for accept: after a deploy a city's drivers come back at once, and beyond it they are dropped.",
        SOMAXCONN_EFFECT,
    ),
    sysctl(
        "net.ipv4.tcp_max_syn_backlog",
        Want::AtLeast(65_535),
        "Half-open connections before they wait for accept; mobile networks take long to finish a handshake.",
        "not measurable here: loopback has no half-open connections that last",
    ),
    sysctl(
        "net.ipv4.tcp_syncookies",
        Want::Exactly("1"),
        "Beyond the half-open ones, answer with cookies rather than not at all.",
        "not measurable here: loopback has no half-open connections that last",
    ),
    sysctl(
        "net.core.netdev_max_backlog",
        Want::AtLeast(16_384),
        "Packets that a card has delivered and a core has not taken: bursts of a storm are longer than the default's 1,000.",
        "not measurable here: the load comes over loopback",
    ),
    sysctl(
        "net.ipv4.tcp_rmem",
        Want::Exactly("4096 16384 262144"),
        "Nobody sends more than 16 KiB at a time. A larger window only lets a peer fill more kernel memory.",
        "not measurable here: idle sockets own no buffers, and measured clients send little",
    ),
    sysctl(
        "net.ipv4.tcp_wmem",
        Want::Exactly("4096 16384 262144"),
        "An app that does not read may fill this much kernel memory beside output_queue_bytes_max before it is cut.",
        "not measurable here: idle sockets own no buffers",
    ),
    sysctl(
        "net.ipv4.tcp_slow_start_after_idle",
        Want::Exactly("0"),
        "Drivers are silent for seconds between messages; their windows need not begin again.",
        "not measurable here: a message fits the first window, so only pipelined HTTP over a long way can gain",
    ),
    sysctl(
        "net.ipv4.ip_local_port_range",
        Want::Range(10_240, 65_535),
        "Ports of this machine's own outgoing connections: load generators, and nodes among themselves.",
        "28,232 connections between two addresses by default, 55,296 so",
    ),
    Line {
        name: "net.ipv4.tcp_ehash_entries",
        probe: Probe::ConnectionTable,
        want: Want::AtLeast(1_048_576),
        remedy: Remedy::Boot("thash_entries=1048576"),
        optional: true,
        why: "Every packet looks its connection up in this table. With more connections than buckets it walks chains of sockets that are \
              in no cache; the kernel makes 524,288 at most by itself.",
        effect: CONNECTION_TABLE_EFFECT,
    },
    Line {
        name: "conntrack",
        probe: Probe::Conntrack,
        want: Want::AtMost(0),
        remedy: Remedy::Script("tuning/notrack.nft"),
        optional: true,
        why: "Each followed connection takes about 300 B and a look-up per packet, and a full table drops new ones silently.",
        effect: "not measurable here: no rule makes the kernel follow connections",
    },
    sysctl(
        "vm.swappiness",
        Want::AtMost(1),
        "A driver's page that was swapped out makes its whole shard wait.",
        "not measurable here: there is no swap",
    ),
    optional(sysctl(
        "kernel.numa_balancing",
        Want::Exactly("0"),
        "Shards are pinned and their memory is where they are; looking for better places costs faults.",
        "not measurable here: one NUMA node",
    )),
    Line {
        name: "transparent_hugepage",
        probe: Probe::Word("/sys/kernel/mm/transparent_hugepage/enabled"),
        want: Want::OneOf(&["madvise", "never"]),
        remedy: Remedy::File,
        optional: true,
        why: "Where every growing heap gets huge pages, memory per driver is no longer what is used of it.",
        effect: "not measurable here: it is on madvise, and the setting is shared with others",
    },
    Line {
        name: "cpufreq/scaling_governor",
        probe: Probe::EachCpu("cpufreq/scaling_governor"),
        want: Want::OneOf(&["performance"]),
        remedy: Remedy::File,
        optional: true,
        why: "A shard sleeps often and shortly; a core that slows down meanwhile answers the next offer late.",
        effect: "not measurable here: a virtual machine has no such setting",
    },
    Line {
        name: "wake-up of a core, µs",
        probe: Probe::WakeUp,
        want: Want::AtMost(10),
        remedy: Remedy::Service("systemd/dispatchd-awake.service"),
        optional: true,
        why: "A shard sleeps thousands of times a second, and each message and commit waits until its core is awake again: \
              100 µs and more in deep states, longer in a virtual machine.",
        effect: WAKE_UP_EFFECT,
    },
    Line {
        name: "NIC interrupts",
        probe: Probe::NicIrqs,
        want: Want::AtMost(0),
        remedy: Remedy::Script("tuning/nic-irq.sh"),
        optional: true,
        why: "An interrupt that may run anywhere moves between cores; each queue on a core of its own keeps packets and shards together.",
        effect: "not measurable here: the load comes over loopback",
    },
];

/// Measured with `dispatchd-bench handshakes --in-flight 2000` in a network namespace of its own, beside other work.
const SOMAXCONN_EFFECT: &str = "2,000 drivers that connect at once: with 128, 2,993 connects are dropped and the slowest hundredth \
                                waits 1.6 s; with 4,096 or more none are, and it waits 0.8 s";

/// Measured with `dispatchd-bench million --drivers 1000000` in a network namespace of its own.
const CONNECTION_TABLE_EFFECT: &str = "two million sockets in 4,194,304 buckets against 262,144: look-ups take 3.9 against 11.1 % of a shard's \
                                       time, 9,342 against 7,212 drivers connect each second";

/// Measured with `dispatchd-bench offers` with and without `--cores-may-sleep`, by turns, on a virtual machine.
const WAKE_UP_EFFECT: &str = "2,000 offers/s, eight pairs of runs, medians: from POST to OFFER 1.0 ms and a 99th percentile of 10.0 with \
                              0, 1.4 and 13.6 ms without a bound";

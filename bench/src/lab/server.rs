//! The raw ring's server with one thing changed. It is a laboratory: it owns its ring directly, with all that is `unsafe`
//! about the operations that the `io-uring` crate has no safe word for.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::wait::{RegisteredWait, WaitArgument};
use dispatchd::say;
use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::raw::Progress;
use crate::raw::server::Options;
use crate::ring::Chunk;
use crate::ring::buffers::RecvBuffers;

/// Buffers that receives share.
const BUFFERS: u16 = 2048;
/// Bytes of each.
const BUFFER_BYTES: u32 = 1024;
const GROUP: u16 = 0;
/// `IORING_RECVSEND_POLL_FIRST` of `sqe.ioprio`.
const POLL_FIRST: u16 = 1;
/// `IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | IORING_ENTER_EXT_ARG_REG`.
const ENTER_REGISTERED: libc::c_uint = 1 | 8 | 64;
/// `IORING_ENTER_GETEVENTS`.
const ENTER_UNTIMED: libc::c_uint = 1;
/// `IORING_ENTER_REGISTERED_RING`: the descriptor is an index of the thread's own table of rings.
const ENTER_OWN_TABLE: libc::c_uint = 16;
/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING: libc::c_uint = 20;
/// Longest sleep, s.
const SLEEP_S: u64 = 3600;

/// How bytes are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receive {
    /// One multishot receive per connection.
    Multishot,
    /// The same, which does not look for bytes before it waits.
    PollFirst,
    /// The same, taking several buffers at a time.
    Bundle,
    /// A multishot poll, and a receive for each of its events.
    Poll,
}

/// How the thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For one completion, the timeout copied with each call.
    Plain,
    /// The same with a timeout that the kernel has mapped.
    Registered,
    /// For one completion, without a timeout.
    Untimed,
    /// The same in a ring that the thread's own table has, so that no call looks its descriptor up.
    OwnTable,
    /// For this many completions, for one after this many µs.
    Window(usize, u32),
    /// Not at all for this many µs after the last completion, then as plain.
    Spin(u64),
}

/// What differs from the raw ring.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    /// Receiving.
    pub receive: Receive,
    /// Waiting.
    pub wait: Wait,
    /// Completions that are taken before the answers are submitted.
    pub batch: usize,
    /// Sends of each answer.
    pub sends: u32,
}

const BASE: Knobs = Knobs {
    receive: Receive::Multishot,
    wait: Wait::Plain,
    batch: usize::MAX,
    sends: 1,
};

/// The variants, by name.
pub const VARIANTS: [(&str, Knobs); 15] = [
    ("as-it-is", BASE),
    (
        "poll-then-recv",
        Knobs {
            receive: Receive::Poll,
            ..BASE
        },
    ),
    (
        "recv-poll-first",
        Knobs {
            receive: Receive::PollFirst,
            ..BASE
        },
    ),
    (
        "recv-bundle",
        Knobs {
            receive: Receive::Bundle,
            ..BASE
        },
    ),
    (
        "registered-wait",
        Knobs {
            wait: Wait::Registered,
            ..BASE
        },
    ),
    (
        "untimed",
        Knobs {
            wait: Wait::Untimed,
            ..BASE
        },
    ),
    (
        "untimed-own-table",
        Knobs {
            wait: Wait::OwnTable,
            ..BASE
        },
    ),
    (
        "window-8-50us",
        Knobs {
            wait: Wait::Window(8, 50),
            ..BASE
        },
    ),
    (
        "window-32-200us",
        Knobs {
            wait: Wait::Window(32, 200),
            ..BASE
        },
    ),
    (
        "spin-20us",
        Knobs {
            wait: Wait::Spin(20),
            ..BASE
        },
    ),
    (
        "spin-100us",
        Knobs {
            wait: Wait::Spin(100),
            ..BASE
        },
    ),
    ("batch-1", Knobs { batch: 1, ..BASE }),
    ("batch-16", Knobs { batch: 16, ..BASE }),
    ("batch-256", Knobs { batch: 256, ..BASE }),
    ("two-sends", Knobs { sends: 2, ..BASE }),
];

/// What the child process is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Which variant; without one, the raw ring
    #[arg(long)]
    variant: Option<String>,
}

/// What `raw-server` does.
///
/// # Errors
/// The server's, or there is no such variant.
pub fn main(arguments: &Arguments) -> io::Result<()> {
    let Some(name) = &arguments.variant else {
        return crate::raw::server::run(&arguments.options);
    };
    let variant = VARIANTS.iter().find(|(known, _)| known == name);
    let (_, knobs) = variant.ok_or_else(|| io::Error::other(format!("no variant {name}")))?;
    run(&arguments.options, *knobs)
}

/// What an operation's completion belongs to; the slot is in the lower half of the user data.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1 << 32;
const POLL: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const CLOSE: u64 = 4 << 32;

struct Lab {
    uring: IoUring,
    buffers: RecvBuffers,
    knobs: Knobs,
    bytes: &'static [u8],
    wait_argument: Option<Box<WaitArgument>>,
    /// The ring's index in the thread's table.
    own_index: Option<u32>,
}

/// Serves until the process is killed. Prints its address first.
///
/// # Errors
/// The kernel's: an operation that it does not have among others.
pub fn run(options: &Options, knobs: Knobs) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    rustix::net::listen(&listener, 4096)?;
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    say!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    let pair = options.pairs[0];
    let mut lab = Lab::new(options.slots, knobs, pair.response)?;
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
        .allocate_file_index(true)
        .build();
    lab.push(&accept.user_data(ACCEPT));
    let first = Progress {
        pair: 0,
        missing: pair.request,
    };
    let mut connections = vec![first; options.slots as usize];
    let mut reaped: Vec<(u64, i32, u32)> = Vec::new();
    let mut last = Instant::now();
    loop {
        if reaped.is_empty() {
            lab.wait(last)?;
            reaped.extend(
                lab.uring
                    .completion()
                    .map(|entry| (entry.user_data(), entry.result(), entry.flags())),
            );
            reaped.reverse();
        } else {
            lab.uring.submit()?;
        }
        if !reaped.is_empty() && matches!(knobs.wait, Wait::Spin(_)) {
            last = Instant::now();
        }
        for _ in 0..knobs.batch {
            let Some((user_data, result, flags)) = reaped.pop() else {
                break;
            };
            lab.complete(user_data, result, flags, &mut connections, pair.request);
        }
    }
}

impl Lab {
    fn new(slots: u32, knobs: Knobs, response: u32) -> io::Result<Self> {
        let registered = knobs.wait == Wait::Registered;
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(16_384);
        if registered {
            builder.setup_r_disabled();
        }
        let uring: IoUring = builder.build(4096)?;
        let wait_argument = registered
            .then(|| WaitArgument::register(&uring, SLEEP_S))
            .transpose()?;
        if registered {
            uring.submitter().register_enable_rings()?;
        }
        uring.submitter().register_files_sparse(slots)?;
        let buffers = RecvBuffers::register(&uring, GROUP, BUFFERS, BUFFER_BYTES)?;
        let own_index = (knobs.wait == Wait::OwnTable)
            .then(|| register_ring(uring.as_raw_fd()))
            .transpose()?;
        Ok(Self {
            own_index,
            uring,
            buffers,
            knobs,
            bytes: Box::leak(vec![b'x'; response as usize].into_boxed_slice()),
            wait_argument,
        })
    }

    fn push(&mut self, entry: &squeue::Entry) {
        if self.uring.submission().is_full() {
            self.uring.submit().expect("the ring takes what fits its queue");
        }
        // SAFETY: the only pointers in entries are to static bytes.
        unsafe { self.uring.submission().push(entry) }.expect("there is room after a submission");
    }

    fn wait(&mut self, last: Instant) -> io::Result<()> {
        let timespec = Timespec::new().sec(SLEEP_S);
        let arguments = SubmitArgs::new().timespec(&timespec);
        let result = match self.knobs.wait {
            Wait::Window(completions, us) => self
                .uring
                .submitter()
                .submit_with_args(completions, &arguments.min_wait_usec(us)),
            Wait::Spin(us) if last.elapsed() < Duration::from_micros(us) => {
                // No wait: only what is there is posted.
                return match self.uring.submitter().submit_with_args(0, &arguments) {
                    Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
                    other => other.map(drop),
                };
            }
            Wait::Plain | Wait::Spin(_) => self.uring.submitter().submit_with_args(1, &arguments),
            Wait::Registered => {
                assert!(self.wait_argument.is_some(), "registered with the ring");
                // The argument is offset 0 of the region that lives as long as this struct.
                self.enter(self.uring.as_raw_fd(), ENTER_REGISTERED, size_of::<RegisteredWait>())
            }
            Wait::Untimed => self.enter(self.uring.as_raw_fd(), ENTER_UNTIMED, 0),
            Wait::OwnTable => {
                let index = self.own_index.expect("registered with the thread");
                self.enter(index as i32, ENTER_UNTIMED | ENTER_OWN_TABLE, 0)
            }
        };
        match result {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Submits everything and waits for one completion; the argument, if any, is offset 0 of what the ring has mapped.
    fn enter(&mut self, descriptor: i32, flags: libc::c_uint, argument_bytes: usize) -> io::Result<usize> {
        let queued = self.uring.submission().len();
        // SAFETY: a plain system call without a pointer.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                descriptor,
                queued as libc::c_uint,
                1 as libc::c_uint,
                flags,
                0 as libc::c_ulong,
                argument_bytes,
            )
        };
        usize::try_from(entered).map_err(|_| io::Error::last_os_error())
    }

    fn complete(&mut self, user_data: u64, result: i32, flags: u32, connections: &mut [Progress], request: u32) {
        let (kind, slot) = (user_data & !0xffff_ffff, user_data as u32);
        match kind {
            ACCEPT => {
                assert!(result >= 0, "accept fails with {result}");
                connections[result as usize] = Progress {
                    pair: 0,
                    missing: request,
                };
                self.arm(result as u32);
            }
            POLL if result < 0 => self.close(slot),
            POLL => {
                self.push(&receive_once(slot));
                if !cqueue::more(flags) {
                    self.arm(slot);
                }
            }
            RECEIVE if result > 0 => {
                self.take(flags, result as u32);
                let progress = &mut connections[slot as usize];
                let mut arrived = result as u32;
                let mut answers = 0;
                while arrived >= progress.missing {
                    arrived -= progress.missing;
                    progress.missing = request;
                    answers += 1;
                }
                progress.missing -= arrived;
                for _ in 0..answers {
                    self.answer(slot);
                }
                let poll = self.knobs.receive == Receive::Poll;
                if !poll && !cqueue::more(flags) {
                    self.arm(slot);
                } else if poll && result as u32 == BUFFER_BYTES {
                    self.push(&receive_once(slot));
                }
            }
            RECEIVE if result == -libc::ENOBUFS => self.arm(slot),
            // The poll goes on: nothing was there any more.
            RECEIVE if result == -libc::EAGAIN => {}
            RECEIVE => self.close(slot),
            // A send fails when its peer has gone; the receive's end follows.
            _ => {}
        }
    }

    /// Gives the buffer of a completion back.
    fn take(&mut self, flags: u32, bytes: u32) {
        let buffer = cqueue::buffer_select(flags).expect("bytes come in a buffer");
        assert!(
            bytes <= BUFFER_BYTES,
            "one message is under way on a connection: no bundle has two buffers"
        );
        self.buffers.release(Chunk { buffer, len: bytes });
    }

    fn arm(&mut self, slot: u32) {
        let entry = match self.knobs.receive {
            Receive::Multishot => opcode::RecvMulti::new(Fixed(slot), GROUP).build(),
            Receive::PollFirst => poll_first(opcode::RecvMulti::new(Fixed(slot), GROUP).build()),
            Receive::Bundle => opcode::RecvMultiBundle::new(Fixed(slot), GROUP).build(),
            Receive::Poll => {
                let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
                let poll = opcode::PollAdd::new(Fixed(slot), events).multi(true).build();
                return self.push(&poll.user_data(POLL | u64::from(slot)));
            }
        };
        self.push(&entry.user_data(RECEIVE | u64::from(slot)));
    }

    fn answer(&mut self, slot: u32) {
        let bytes = self.bytes;
        let half = bytes.len() / self.knobs.sends as usize;
        for part in 0..self.knobs.sends as usize {
            let end = if part + 1 == self.knobs.sends as usize {
                bytes.len()
            } else {
                (part + 1) * half
            };
            let part = &bytes[part * half..end];
            let send = opcode::Send::new(Fixed(slot), part.as_ptr(), part.len() as u32).flags(libc::MSG_NOSIGNAL);
            self.push(&send.build().user_data(SEND | u64::from(slot)));
        }
    }

    fn close(&mut self, slot: u32) {
        self.push(
            &opcode::Close::new(Fixed(slot))
                .build()
                .user_data(CLOSE | u64::from(slot)),
        );
    }
}

/// Puts a ring into this thread's table of rings; its index there.
fn register_ring(ring: i32) -> io::Result<u32> {
    // `struct io_uring_rsrc_update` with the offset `-1U`, for any.
    let mut update = [u64::from(u32::MAX), ring as u64];
    // SAFETY: the kernel reads and writes one structure of 16 bytes.
    let registered = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_RING, &raw mut update, 1) };
    if registered < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(update[0] as u32)
}

fn receive_once(slot: u32) -> squeue::Entry {
    opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), BUFFER_BYTES)
        .buf_group(GROUP)
        .flags(libc::MSG_DONTWAIT)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
        .user_data(RECEIVE | u64::from(slot))
}

/// Sets the flag for which the crate has no builder.
fn poll_first(mut entry: squeue::Entry) -> squeue::Entry {
    let start: *mut u16 = (&raw mut entry).cast();
    // SAFETY: an entry is the kernel's 64-byte `io_uring_sqe`, whose `ioprio` is the u16 at offset 2 (io_uring_enter(2)).
    unsafe { *start.add(1) |= POLL_FIRST };
    entry
}

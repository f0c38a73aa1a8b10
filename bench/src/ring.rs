//! The load generator's own `io_uring`: connections as direct descriptors, multishot receive into provided buffers.
//!
//! Owns every socket of this process that carries load, and all of the crate's ring `unsafe` but the laboratory's. Must never block except in
//! [`Ring::wait`], and never calls back: completions are reaped first, then handed out one by one by [`Ring::next_event`].
//! Numbers: one table entry for a connection and no file descriptor, no receive buffer for an idle connection, one
//! `io_uring_enter` per turn.

mod address;
pub(crate) mod buffers;
mod operation;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

pub use address::SockAddr;
pub use buffers::Chunk;
use buffers::{RecvBuffers, SendBlocks};
use operation::{Operation, user_data};

/// Entries of the submission queue. Filling it costs one more system call, nothing else.
const SUBMISSION_ENTRIES: u32 = 4096;
/// Entries of the completion queue: bounds what one turn reaps before the kernel keeps the rest on its overflow list.
const COMPLETION_ENTRIES: u32 = 16_384;
/// Provided receive buffers. When they run out, receives end with `ENOBUFS` and are armed again after the turn.
const RECV_BUFFERS: u16 = 2048;
/// Bytes of one provided receive buffer; more than any message of the scenarios, so that each arrives in one piece.
const RECV_BUFFER_BYTES: u32 = 1024;
/// Entries that [`Ring::connect`] submits as one chain.
const CONNECT_CHAIN_ENTRIES: usize = 7;

const _: () = assert!(RECV_BUFFERS.is_power_of_two() && RECV_BUFFERS <= 32_768);
const _: () = assert!(COMPLETION_ENTRIES >= 2 * SUBMISSION_ENTRIES);
const _: () = assert!(CONNECT_CHAIN_ENTRIES < SUBMISSION_ENTRIES as usize);

/// A socket option's value; static, because the kernel reads it while the connect chain runs.
static ENABLED: libc::c_int = 1;

/// Group of the provided receive buffers.
const BUFFER_GROUP: u16 = 0;

/// What happened to a connection, named by its slot in the direct descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A listener took a connection into this slot; nothing is armed on it yet.
    Accepted {
        /// Slot that the kernel chose.
        slot: u32,
    },
    /// Bytes arrived; pass the chunk to [`Ring::take_data`] or [`Ring::release`] before the next turn.
    Data {
        /// Connection's slot.
        slot: u32,
        /// Where the bytes lie.
        chunk: Chunk,
    },
    /// A send has completed; its block is free again.
    Sent {
        /// Connection's slot.
        slot: u32,
    },
    /// Nothing more will arrive: end of stream (`errno` 0) or an error, of connecting too. Comes exactly once for each
    /// [`Ring::connect`] and [`Ring::arm_receive`].
    Ended {
        /// Connection's slot.
        slot: u32,
        /// Error number, 0 for an orderly end.
        errno: i32,
    },
    /// Sending failed; [`Event::Ended`] follows.
    Failed {
        /// Connection's slot.
        slot: u32,
        /// Error number.
        errno: i32,
    },
    /// The slot is empty again.
    Closed {
        /// Slot that was freed.
        slot: u32,
    },
}

/// An `io_uring` instance with a direct descriptor table, provided receive buffers and a pool of send blocks.
pub struct Ring {
    // Dropped before the buffers: closing the ring ends the kernel's use of them.
    uring: IoUring,
    receive: RecvBuffers,
    blocks: SendBlocks,
    reaped: VecDeque<(u64, i32, u32)>,
}

impl Ring {
    /// Opens a ring whose table has room for `slots` connections (at most `RLIMIT_NOFILE`).
    ///
    /// # Errors
    /// What the kernel says: `EMFILE` when `slots` is above the limit, `ENOMEM`, `ENOSYS`, `EPERM` (`io_uring` disabled).
    pub fn new(slots: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        uring.submitter().register_files_sparse(slots)?;
        let receive = RecvBuffers::register(&uring, BUFFER_GROUP, RECV_BUFFERS, RECV_BUFFER_BYTES)?;
        Ok(Self {
            uring,
            receive,
            blocks: SendBlocks::default(),
            reaped: VecDeque::new(),
        })
    }

    /// Signals this eventfd whenever there is something to reap, for an owner that sleeps elsewhere. What the owner itself
    /// submits signals too. The ring does not need it to stay open.
    ///
    /// # Errors
    /// What the kernel says: `EBUSY` when there is one already.
    pub fn signal(&self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd.as_raw_fd())
    }

    /// Whether a call of [`Ring::wait`] without a timeout would do anything.
    pub fn has_work(&mut self) -> bool {
        let queue = self.uring.submission();
        let enters = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        enters || !self.uring.completion().is_empty()
    }

    /// Accepts from `listener` into free slots until the ring is dropped. The listener must outlive the ring.
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn accept_all(&mut self, listener: &std::net::TcpListener) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .allocate_file_index(true)
            .build()
            .user_data(user_data(Operation::Accept, 0, 0));
        self.push(&[entry])
    }

    /// Opens a socket in `slot`, connects it to `address`, sends what `fill` writes, and arms the receive, as one chain.
    /// Only a failure and what arrives show up as events.
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn connect(&mut self, slot: u32, address: &SockAddr, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.connect_from(slot, None, address, fill)
    }

    /// The same from this local address, whatever its port.
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn connect_from(
        &mut self,
        slot: u32,
        local: Option<&SockAddr>,
        address: &SockAddr,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<()> {
        let target = DestinationSlot::try_from_slot_target(slot)
            .map_err(|slot| io::Error::other(format!("slot {slot} is outside of the kernel's range")))?;
        let (key, send) = self.fill_block(slot, fill);
        let tag = user_data(Operation::Connect, key, slot);
        let quiet = |entry: squeue::Entry| {
            let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
            entry.flags(flags).user_data(tag)
        };
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)
            .file_index(Some(target))
            .build();
        let mut chain = Vec::with_capacity(CONNECT_CHAIN_ENTRIES);
        chain.push(quiet(socket));
        chain.push(quiet(enable(slot, libc::IPPROTO_TCP, libc::TCP_NODELAY)));
        if let Some(local) = local {
            // The port is chosen with the connect, per pair of addresses: ports of one local address serve every server.
            chain.push(quiet(enable(slot, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)));
            let bind = opcode::Bind::new(Fixed(slot), local.as_ptr(), SockAddr::LEN).build();
            chain.push(quiet(bind));
        }
        let connect = opcode::Connect::new(Fixed(slot), address.as_ptr(), SockAddr::LEN).build();
        chain.push(quiet(connect));
        chain.push(send.flags(squeue::Flags::IO_LINK));
        chain.push(Self::receive_entry(slot));
        self.push(&chain)
    }

    /// Arms the multishot receive of an accepted connection.
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn arm_receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = Self::receive_entry(slot);
        self.push(&[entry])
    }

    /// Sends what `fill` writes into a recycled block. Sends of one slot leave in the order of the calls as long as the
    /// socket's buffer has room, which holds for messages far smaller than that buffer.
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn send(&mut self, slot: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let (_, entry) = self.fill_block(slot, fill);
        self.push(&[entry])
    }

    /// Sends bytes that live as long as the process.
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn send_static(&mut self, slot: u32, bytes: &'static [u8]) -> io::Result<()> {
        let entry = opcode::Send::new(Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Operation::SendStatic, 0, slot));
        self.push(&[entry])
    }

    /// Stops the receive, which ends with [`Event::Ended`]; closing the slot then ends the connection. (A shutdown would do
    /// too, but the kernel hands each to a worker thread.)
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn stop_receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(user_data(Operation::Receive, 0, slot))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(user_data(Operation::Cancel, 0, slot));
        self.push(&[entry])
    }

    /// Frees the slot; call it after [`Event::Ended`], because an armed receive would keep the socket alive.
    ///
    /// # Errors
    /// An error of `io_uring_enter`.
    pub fn close(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::Close::new(Fixed(slot))
            .build()
            .user_data(user_data(Operation::Close, 0, slot));
        self.push(&[entry])
    }

    /// Submits everything, sleeps until a completion or for `timeout` at most, and reaps all completions. With a `timeout` of
    /// zero it does not sleep, and without anything to do there is no system call.
    ///
    /// # Errors
    /// An error of `io_uring_enter` other than a timeout, an interruption or a full completion queue.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if timeout.is_zero() && !self.has_work() {
            return Ok(());
        }
        match self.enter(timeout) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        let completions = self.uring.completion();
        self.reaped
            .extend(completions.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        Ok(())
    }

    fn enter(&mut self, timeout: Duration) -> io::Result<usize> {
        if timeout.is_zero() {
            // A timeout of zero would be a timer all the same.
            let queued = self.uring.submission().len() as u32;
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: no argument is passed.
            return unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) };
        }
        let timespec = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let arguments = SubmitArgs::new().timespec(&timespec);
        self.uring.submitter().submit_with_args(1, &arguments)
    }

    /// The next reaped completion that means something to a connection's owner.
    ///
    /// # Errors
    /// An error of `io_uring_enter` while a receive is armed again.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        while let Some((user_data, result, flags)) = self.reaped.pop_front() {
            let slot = user_data as u32;
            let key = (user_data >> 32) as u32 & 0x00ff_ffff;
            let event = match Operation::from_user_data(user_data) {
                Operation::Accept if result >= 0 => Some(Event::Accepted { slot: result as u32 }),
                Operation::Accept => return Err(io::Error::from_raw_os_error(-result)),
                Operation::Connect => {
                    // The only completion of a broken chain: what was linked behind is dropped without a word.
                    assert!(result < 0, "a successful step of the chain posts no completion");
                    self.blocks.free(key);
                    Some(Event::Ended { slot, errno: -result })
                }
                Operation::Receive => self.received(slot, result, flags)?,
                Operation::Send => {
                    self.blocks.free(key);
                    Some(sent(slot, result))
                }
                Operation::SendStatic => Some(sent(slot, result)),
                // Nothing to cancel: the receive has just ended by itself.
                Operation::Cancel => None,
                Operation::Close => Some(Event::Closed { slot }),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Appends a chunk's bytes to `into` and gives its buffer back to the kernel.
    pub fn take_data(&mut self, chunk: Chunk, into: &mut Vec<u8>) {
        into.extend_from_slice(self.receive.bytes(chunk));
        self.receive.release(chunk);
    }

    /// Gives a chunk's buffer back to the kernel unread.
    pub fn release(&mut self, chunk: Chunk) {
        self.receive.release(chunk);
    }

    fn received(&mut self, slot: u32, result: i32, flags: u32) -> io::Result<Option<Event>> {
        let more = cqueue::more(flags);
        if result > 0 {
            let buffer = cqueue::buffer_select(flags).expect("a receive with data always names its buffer");
            if !more {
                self.arm_receive(slot)?;
            }
            return Ok(Some(Event::Data {
                slot,
                chunk: Chunk {
                    buffer,
                    len: result as u32,
                },
            }));
        }
        assert!(!more, "a multishot receive that ends announces no more completions");
        if result == -libc::ENOBUFS {
            self.arm_receive(slot)?;
            return Ok(None);
        }
        Ok(Some(Event::Ended { slot, errno: -result }))
    }

    fn receive_entry(slot: u32) -> squeue::Entry {
        opcode::RecvMulti::new(Fixed(slot), BUFFER_GROUP)
            .build()
            .user_data(user_data(Operation::Receive, 0, slot))
    }

    fn fill_block(&mut self, slot: u32, fill: impl FnOnce(&mut Vec<u8>)) -> (u32, squeue::Entry) {
        let (key, block) = self.blocks.take();
        fill(block);
        assert!(!block.is_empty(), "an empty send would never complete a message");
        let entry = opcode::Send::new(Fixed(slot), block.as_ptr(), block.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Operation::Send, key, slot));
        (key, entry)
    }

    /// Queues a chain whole: a submission in its middle would cut its links.
    fn push(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        let queue = self.uring.submission();
        let free = queue.capacity() - queue.len();
        drop(queue);
        if free < entries.len() {
            self.uring.submit()?;
        }
        // SAFETY: every pointer in these entries stays valid until its completion: send blocks are owned by `self.blocks`
        // and not touched while taken (leaked if the ring is dropped before), static bytes and `ENABLED` live for ever, and
        // addresses are `&'static` (`SockAddr`).
        let pushed = unsafe { self.uring.submission().push_multiple(entries) };
        pushed.map_err(|_| io::Error::other("the submission queue has no room right after a submission"))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // From here on the kernel can select no provided buffer, so their memory may go with the struct.
        if let Err(error) = self.uring.submitter().unregister_buf_ring(BUFFER_GROUP) {
            eprintln!("receive buffers stay registered ({error}); their memory is kept");
            self.receive.leak();
        }
        self.blocks.leak_unfinished();
    }
}

/// Sets a socket option to 1.
fn enable(slot: u32, level: libc::c_int, option: libc::c_int) -> squeue::Entry {
    let value = (&raw const ENABLED).cast();
    let length = size_of::<libc::c_int>() as u32;
    opcode::SetSockOpt::new(Fixed(slot), level as u32, option as u32, value, length).build()
}

fn sent(slot: u32, result: i32) -> Event {
    if result < 0 {
        Event::Failed { slot, errno: -result }
    } else {
        Event::Sent { slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

    fn next(ring: &mut Ring) -> Event {
        for _ in 0..100 {
            if let Some(event) = ring.next_event().unwrap() {
                return event;
            }
            ring.wait(Duration::from_millis(100)).unwrap();
        }
        panic!("no event within ten seconds");
    }

    #[test]
    fn a_connection_goes_through_its_whole_life() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("bound to IPv4")
        };
        let mut ring = Ring::new(8).unwrap();
        let local = SockAddr::new(SocketAddrV4::new([127, 0, 0, 77].into(), 0));
        ring.connect_from(3, Some(&local), &SockAddr::new(address), |block| {
            block.extend_from_slice(b"hello");
        })
        .unwrap();
        // The chain goes on as its steps end, which takes more than one look; its last one has a completion.
        ring.wait(Duration::from_secs(10)).unwrap();
        let (mut peer, from) = listener.accept().unwrap();
        assert_eq!(
            from.ip(),
            Ipv4Addr::new(127, 0, 0, 77),
            "it comes from the address that was asked for"
        );
        let mut hello = [0; 5];
        peer.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        assert_eq!(next(&mut ring), Event::Sent { slot: 3 });
        peer.write_all(b"answer").unwrap();
        let Event::Data { slot: 3, chunk } = next(&mut ring) else {
            panic!("expected data")
        };
        let mut bytes = Vec::new();
        ring.take_data(chunk, &mut bytes);
        assert_eq!(bytes, b"answer");
        drop(peer);
        assert_eq!(next(&mut ring), Event::Ended { slot: 3, errno: 0 });
        ring.close(3).unwrap();
        assert_eq!(next(&mut ring), Event::Closed { slot: 3 });
    }

    #[test]
    fn a_refused_connection_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("bound to IPv4")
        };
        drop(listener);
        let mut ring = Ring::new(1).unwrap();
        ring.connect(0, &SockAddr::new(address), |block| block.push(b'x'))
            .unwrap();
        let errno = libc::ECONNREFUSED;
        assert_eq!(next(&mut ring), Event::Ended { slot: 0, errno });
        ring.close(0).unwrap();
        assert_eq!(next(&mut ring), Event::Closed { slot: 0 });
    }
}

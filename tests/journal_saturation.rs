//! What one shard's decisions and journal sustain together, network and store excluded: request and driver actors, the timer
//! wheel, the writer, and its group commits on a real file through the net ring, one thread. Prints figures; run it on a
//! release build and on the disk that is meant (`TMPDIR`):
//! `cargo test --release --test journal_saturation -- --ignored --nocapture`.
//!
//! What a shard does besides and this does not: HTTP and WebSocket bytes, letters between shards, the index of ids, metrics,
//! and the queue to the store (the commit's consequences are derived here too, and dropped).

use dispatchd::cold::port::{Commit, Source};
use dispatchd::fsm::driver::{Driver, DriverEffect, DriverEvent, DriverLimits, ToSocket};
use dispatchd::fsm::fold;
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::request::{Answer, Defaults, Durability, ReplyTo, Request, RequestEffect, RequestEvent};
use dispatchd::fsm::types::{OfferRequest, Priority, Record};
use dispatchd::fsm::wheel::{TimerId, Wheel};
use dispatchd::journal::segments::{self, SegmentFiles};
use dispatchd::journal::{Geometry, Incarnation, Lsn, Owner, SegmentHeader, Writer, create_shard_dir};
use dispatchd::net::{Net, NetConfig, NetEvent, Waker};
use glommio::{LocalExecutorBuilder, Placement};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Drivers, and so at most as many offers at once.
const DRIVERS: usize = 4_096;
/// Offers under way at once: what a shard at saturation has.
const IN_FLIGHT: usize = 2_048;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
const LIMITS: DriverLimits = DriverLimits {
    heartbeat_ms: 30_000,
    driver_ttl_ms: 60_000,
    off_shift_memory_ms: 43_200_000,
    age_step_ms: 2_000,
};
const TRIP: &str = r#"{"pickup":{"zone":161,"lat":40.758028,"lon":-73.977698},"dropoff":{"zone":237,"lat":40.768615,"lon":-73.965635},"passengers":1,"fare_cents":1450,"distance_m":2253}"#;

/// What is done with each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// It is over once its offer is durable (the 202 and the `OFFER` could leave).
    Offered,
    /// Its driver accepts, and it is over once that is durable too (`CONFIRMED` could leave).
    Accepted,
}

struct Live {
    request: Request,
    driver: usize,
    timer: Option<TimerId>,
}

struct Bench {
    life: Life,
    net: Net,
    writer: Writer,
    files: SegmentFiles,
    house: House,
    creating: bool,
    wheel: Wheel,
    begun: Instant,
    now_ms: u64,
    drivers: Vec<Driver>,
    free: VecDeque<usize>,
    requests: slab::Slab<Live>,
    awaiting: VecDeque<(Lsn, usize, usize, usize, bool)>,
    posted: u64,
    offered: u64,
    accepted: u64,
    commits: u64,
    bytes: u64,
}

/// The housekeeping thread's stand-in: makes segments, deletes them, and wakes the ring.
struct House {
    orders: Sender<Order>,
    done: Receiver<(u64, File)>,
}

enum Order {
    Create(SegmentHeader),
    Remove(Vec<u64>),
}

impl House {
    fn start(dir: PathBuf, waker: Waker) -> Self {
        let (orders, queue) = channel();
        let (made, done) = channel();
        std::thread::spawn(move || {
            LocalExecutorBuilder::new(Placement::Unbound)
                .make()
                .unwrap()
                .run(async {
                    while let Ok(order) = queue.recv() {
                        match order {
                            Order::Create(header) => {
                                let file = segments::create(&dir, &header).await.unwrap();
                                if made.send((header.segment, file)).is_ok() {
                                    waker.wake();
                                }
                            }
                            Order::Remove(ids) => segments::remove(&dir, &ids).await.unwrap(),
                        }
                    }
                });
        });
        Self { orders, done }
    }
}

impl Bench {
    fn new(root: &std::path::Path, life: Life) -> Self {
        let owner = Owner {
            incarnation: Incarnation::next(root, 0).unwrap(),
            shard: 0,
        };
        let dir = create_shard_dir(root, owner).unwrap();
        let net = Net::new(&NetConfig {
            fixed_files: 64,
            ..NetConfig::default()
        })
        .unwrap();
        let house = House::start(dir, net.waker());
        let mut effects = Vec::new();
        let drivers = (0..DRIVERS).map(|number| {
            let mut driver = Driver::new(DriverId::parse(&format!("driver-{number:06}")).unwrap(), 0);
            driver.step(DriverEvent::Connected { session: 1 }, 0, &LIMITS, &mut effects);
            effects.clear();
            driver
        });
        Self {
            life,
            house,
            writer: Writer::new(owner, Geometry::default()),
            files: SegmentFiles::new(),
            creating: false,
            wheel: Wheel::new(0),
            begun: Instant::now(),
            now_ms: 0,
            drivers: drivers.collect(),
            free: (0..DRIVERS).collect(),
            requests: slab::Slab::new(),
            awaiting: VecDeque::new(),
            posted: 0,
            offered: 0,
            accepted: 0,
            commits: 0,
            bytes: 0,
            net,
        }
    }

    fn post(&mut self) {
        let driver = self.free.pop_front().expect("fewer requests than drivers");
        let offer = OfferRequest {
            request_id: RequestId::parse(&format!("bench-{:010}", self.posted)).unwrap(),
            candidates: vec![self.drivers[driver].id().clone()],
            priority: Priority::Standard,
            offer_timeout_ms: None,
            deadline_ms: None,
            max_attempts: None,
            parallel: None,
            busy_wait_ms: None,
            trip: TRIP.into(),
        };
        let reply = ReplyTo {
            node: 0,
            shard: 0,
            call: self.posted,
        };
        let defaults = Defaults {
            offer_timeout_ms: 8_000,
            deadline_ms: 120_000,
        };
        self.posted += 1;
        let mut effects = Vec::new();
        let request = Request::received(offer, reply, defaults, self.now_ms, &mut effects);
        let key = self.requests.insert(Live {
            request,
            driver,
            timer: None,
        });
        self.apply(key, effects);
    }

    fn apply(&mut self, key: usize, effects: Vec<RequestEffect>) {
        for effect in effects {
            match effect {
                RequestEffect::Persist { from, to, wait } => {
                    let request = &self.requests[key].request;
                    let record = Record::Steps {
                        request_id: request.id().clone(),
                        first_seq: from as u32 + 1,
                        entries: request.log()[from..to].to_vec(),
                    };
                    let lsn = self.writer.append(&record).unwrap();
                    self.awaiting.push_back((lsn, key, from, to, wait));
                }
                RequestEffect::Driver { message, .. } => self.tell_driver(key, message),
                RequestEffect::Arm { at_ms } => {
                    let live = &mut self.requests[key];
                    if let Some(timer) = live.timer.take() {
                        self.wheel.cancel(timer);
                    }
                    live.timer = at_ms.map(|at_ms| self.wheel.arm(at_ms, key as u64));
                }
                RequestEffect::Reply { .. } | RequestEffect::PassOn(_) | RequestEffect::Closed => {}
            }
        }
    }

    fn tell_driver(&mut self, key: usize, message: dispatchd::fsm::request::ToDriver) {
        let request_id = self.requests[key].request.id().clone();
        let driver = self.requests[key].driver;
        let mut effects = Vec::new();
        let event = DriverEvent::Request {
            node: 0,
            request_id,
            message,
        };
        self.drivers[driver].step(event, self.now_ms, &LIMITS, &mut effects);
        for effect in effects {
            match effect {
                DriverEffect::Send(ToSocket::Offer {
                    request_id, attempt, ..
                }) => {
                    self.offered += 1;
                    match self.life {
                        Life::Offered => self.end(key),
                        Life::Accepted => self.accept(key, request_id, attempt),
                    }
                }
                DriverEffect::Send(ToSocket::Confirmed { .. }) => {
                    self.accepted += 1;
                    self.end(key);
                }
                DriverEffect::Request { event, .. } | DriverEffect::Asked { event, .. } => {
                    self.tell_request(key, event);
                }
                _ => {}
            }
        }
    }

    fn accept(&mut self, key: usize, request_id: RequestId, attempt: u32) {
        let driver = self.requests[key].driver;
        let mut effects = Vec::new();
        let event = DriverEvent::Answer {
            request_id,
            attempt,
            answer: Answer::Accept,
            reason: None,
        };
        self.drivers[driver].step(event, self.now_ms, &LIMITS, &mut effects);
        for effect in effects {
            if let DriverEffect::Request { event, .. } = effect {
                self.tell_request(key, event);
            }
        }
    }

    fn tell_request(&mut self, key: usize, event: RequestEvent) {
        let mut effects = Vec::new();
        self.requests[key].request.step(event, self.now_ms, &mut effects);
        self.apply(key, effects);
    }

    /// Takes the request out, and its driver is as new.
    fn end(&mut self, key: usize) {
        // What was appended without being waited for names the key still: it is over with the commit.
        let Live { driver, timer, .. } = &mut self.requests[key];
        let driver = *driver;
        if let Some(timer) = timer.take() {
            self.wheel.cancel(timer);
        }
        let mut fresh = Driver::new(self.drivers[driver].id().clone(), 0);
        let mut effects = Vec::new();
        fresh.step(
            DriverEvent::Connected { session: 1 },
            self.now_ms,
            &LIMITS,
            &mut effects,
        );
        self.drivers[driver] = fresh;
        self.free.push_back(driver);
        self.requests.remove(key);
    }

    fn committed(&mut self, through: Lsn) {
        while self.awaiting.front().is_some_and(|(lsn, ..)| *lsn <= through) {
            let (lsn, key, from, to, wait) = self.awaiting.pop_front().expect("looked at above");
            let Some(live) = self.requests.get_mut(key) else {
                continue;
            };
            let (request, source) = (
                &live.request,
                Source {
                    incarnation: 1,
                    shard: 0,
                },
            );
            let mut commit = Commit::empty(source, lsn);
            fold::published(
                request.id(),
                &request.log()[..to],
                from,
                request.fold(),
                &mut commit.published,
            );
            fold::rows(
                request.id(),
                &request.log()[..to],
                from,
                request.fold(),
                &mut commit.rows,
            );
            drop(std::hint::black_box(commit));
            if wait {
                let mut effects = Vec::new();
                self.requests[key]
                    .request
                    .durable(Durability::Committed, self.now_ms, &mut effects);
                self.apply(key, effects);
            }
        }
    }

    fn turn(&mut self, posting: bool) {
        let mut events = Vec::new();
        self.net.turn(Some(Duration::from_millis(100)), &mut events).unwrap();
        self.now_ms = self.begun.elapsed().as_millis() as u64;
        for event in events {
            if let NetEvent::FileWritten { buffer, result, .. } = event {
                let committed = self.writer.completed(buffer, result).unwrap();
                self.commits += 1;
                self.committed(committed.through);
            }
        }
        while let Ok((id, file)) = self.house.done.try_recv() {
            self.creating = false;
            self.files.insert(id, file);
            self.writer.add_segment(id);
        }
        let mut fired = Vec::new();
        self.wheel.advance(self.now_ms, &mut fired);
        assert!(fired.is_empty(), "no offer ends by time");
        while posting && self.requests.len() < IN_FLIGHT {
            self.post();
        }
        self.write();
    }

    fn write(&mut self) {
        if let Some(op) = self.writer.next_write() {
            self.bytes += op.len as u64;
            let file = self.files.get(op.segment).expect("added with its file").as_raw_fd();
            self.net.write_file(op.segment, file, op.offset, op.buffer, op.len);
        }
        if !self.creating
            && let Some(id) = self.writer.needs_segment()
        {
            self.creating = true;
            let header = self.writer.segment_header(id);
            self.house.orders.send(Order::Create(header)).unwrap();
        }
        let dropped = self.writer.drop_through(self.writer.committed());
        if !dropped.is_empty() {
            for id in &dropped {
                self.files.remove(*id);
            }
            self.house.orders.send(Order::Remove(dropped)).unwrap();
        }
    }
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
#[ignore = "prints figures, checks nothing but that all of it became durable: ./test --long"]
fn saturation() {
    for life in [Life::Offered, Life::Accepted] {
        let root = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(root.path(), life);
        while bench.begun.elapsed() < WARM_UP {
            bench.turn(true);
        }
        let count = |bench: &Bench| (bench.offered, bench.accepted, bench.commits, bench.bytes);
        let (before, cpu, begun) = (count(&bench), thread_cpu(), Instant::now());
        while begun.elapsed() < MEASURED {
            bench.turn(true);
        }
        let (after, cpu, seconds) = (
            count(&bench),
            thread_cpu().saturating_sub(cpu),
            begun.elapsed().as_secs_f64(),
        );
        while !bench.requests.is_empty() {
            bench.turn(false);
        }
        assert_eq!(bench.offered, bench.posted, "every offer became durable");
        let offers = after.0 - before.0;
        println!(
            "{life:?}: {:.0} durable offers/s, {:.0} durable accepts/s; {:.0} commits/s of {:.1} KB; {:.1} us of the shard's \
             thread per request ({:.0}% of a core), {} in flight",
            offers as f64 / seconds,
            (after.1 - before.1) as f64 / seconds,
            (after.2 - before.2) as f64 / seconds,
            (after.3 - before.3) as f64 / 1e3 / (after.2 - before.2) as f64,
            cpu.as_micros() as f64 / offers as f64,
            100.0 * cpu.as_secs_f64() / seconds,
            IN_FLIGHT
        );
    }
}

//! A load process: reads its orders from standard input, plays its part, and reports on standard output, a line of JSON each.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::net::SocketAddrV4;

use super::geography::City;
use super::scenario::{FaultKind, Scenario};
use super::tally::{Counts, Orders, Report};
use super::world::World;
use crate::http;
use crate::message;
use crate::session::Session;

/// Keep-alive HTTP connections of a load process.
const HTTP_CONNECTIONS: u32 = 4;
/// Time between two reports, ns.
pub const TICK_NS: u64 = 500_000_000;
/// After the last phase, outcomes that are still to come are waited for this long at most, ns.
const SETTLE_NS_MAX: u64 = 15_000_000_000;
/// Accepted requests that are read back from the node after the run.
const AUDITED_MAX: usize = 200;

/// Plays the part that the first line of standard input describes.
///
/// # Errors
/// The ring's, or the orders make no sense, or drivers do not get connected.
pub fn run() -> io::Result<()> {
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut lines = io::stdin().lock().lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let orders: Orders = serde_json::from_str(&line()?)?;
    let Orders {
        scenario,
        address,
        process,
        round,
    } = &orders;
    let city = City::load(scenario.geography.trips.as_deref()).map_err(io::Error::other)?;
    let mut world = World::new(&city, scenario, *process, *round);
    let (first, drivers) = scenario.part(*process);
    let mut session = Session::open_range(*address, first, drivers, HTTP_CONNECTIONS)?;
    let connected = session.connect_drivers(drivers, |_| {})?;
    session.tolerate_loss();
    world.all_connected();
    say(&Report::Ready {
        connect_s: connected.took_ns as f64 / 1e9,
    })?;
    // Heartbeats go on while the others connect: the node waits for nobody.
    let go = std::thread::spawn(move || io::stdin().lines().next().is_some_and(|line| line.is_ok()));
    drop(lines);
    while !go.is_finished() {
        let until_ns = session.now_ns() + TICK_NS / 50;
        turn(&mut world, &mut session, until_ns)?;
    }
    if !go.join().unwrap_or(false) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    play(&mut world, &mut session, scenario)?;
    settle(&mut world, &mut session)?;
    let audited = audit(&mut world, *address);
    say(&Report::Done {
        faults: world.faults.to_map(),
        audited,
    })
}

fn say(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    out.flush()
}

fn turn(world: &mut World<'_>, session: &mut Session, until_ns: u64) -> io::Result<()> {
    world.act(session)?;
    session.turn(until_ns.min(world.next_due_ns()))?;
    let events = session.take_events();
    for event in &events {
        world.react(session, event)?;
    }
    session.recycle(events);
    Ok(())
}

/// All phases, with the faults that are the drivers' own. Open loop: a POST's time comes, whatever has come back.
fn play(world: &mut World<'_>, session: &mut Session, scenario: &Scenario) -> io::Result<()> {
    let start_ns = session.now_ns();
    let end_ns = start_ns + (scenario.secs() * 1e9) as u64;
    let (mut due_ns, mut tick_ns) = (start_ns, start_ns + TICK_NS);
    let drivers = f64::from(session.drivers());
    let mut faults: Vec<_> = scenario.fault.iter().collect();
    faults.sort_by(|one, other| other.at_s.total_cmp(&one.at_s));
    loop {
        let now_ns = session.now_ns();
        let at_s = (now_ns - start_ns) as f64 / 1e9;
        if now_ns >= tick_ns {
            tick(world, session, at_s)?;
            tick_ns += TICK_NS;
        }
        if now_ns >= end_ns {
            break;
        }
        while faults.last().is_some_and(|fault| fault.at_s <= at_s)
            && let Some(fault) = faults.pop()
        {
            let hit = (drivers * fault.share) as u32;
            for driver in 0..hit {
                match fault.kind {
                    FaultKind::ReconnectStorm => session.cut(driver)?,
                    FaultKind::Stall => world.stall(session, driver, fault.secs)?,
                    // The node's own.
                    FaultKind::Kill | FaultKind::Drain => {}
                }
            }
        }
        while due_ns <= now_ns {
            let rate = scenario.rate_at((due_ns - start_ns) as f64 / 1e9) / f64::from(scenario.processes);
            if rate < 1e-3 {
                due_ns += TICK_NS / 50;
                continue;
            }
            world.post(session, due_ns);
            due_ns += (1e9 / rate) as u64;
        }
        if scenario.behaviour.location_s > 0.0 {
            world.send_locations(session, (at_s * drivers / scenario.behaviour.location_s) as u64)?;
        }
        let pause_ns = if scenario.behaviour.location_s > 0.0 {
            now_ns + 1_000_000
        } else {
            u64::MAX
        };
        turn(world, session, due_ns.min(tick_ns).min(end_ns).min(pause_ns))?;
    }
    Ok(())
}

fn tick(world: &mut World<'_>, session: &Session, at_s: f64) -> io::Result<()> {
    say(&Report::Tick {
        at_s,
        connected: session.connected(),
        counts: Counts {
            heartbeats: session.heartbeats_sent(),
            ..world.tally.counts
        },
        latencies: world.tally.take_sparse(),
    })
}

/// Waits for the outcomes that are still to come. What does not come in time is a fault.
fn settle(world: &mut World<'_>, session: &mut Session) -> io::Result<()> {
    let deadline_ns = session.now_ns() + SETTLE_NS_MAX;
    while world.unsettled() != (0, 0) && session.now_ns() < deadline_ns {
        turn(world, session, deadline_ns)?;
    }
    let (accepting, untaken) = world.unsettled();
    for (count, kind) in [(accepting, "ACCEPT without an outcome"), (untaken, "POST never taken")] {
        if count > 0 {
            world.faults.add(kind, || count.to_string());
        }
    }
    Ok(())
}

/// Asks the node who has the trips that drivers were confirmed.
fn audit(world: &mut World<'_>, address: SocketAddrV4) -> u64 {
    let all: Vec<(u32, u32)> = world.winners().collect();
    let step = all.len().div_ceil(AUDITED_MAX).max(1);
    let mut audited = 0;
    for (request, driver) in all.into_iter().step_by(step) {
        let (mut path, mut name) = (b"/v1/dispatch/request/".to_vec(), Vec::new());
        message::write_request_id(&mut path, request);
        message::write_driver_id(&mut name, driver);
        let (path, name) = (String::from_utf8_lossy(&path), String::from_utf8_lossy(&name));
        audited += 1;
        match http::get(address, &path) {
            Ok((200, body)) if body.contains("\"ACCEPTED\"") && body.contains(&format!("\"driver_id\":\"{name}\"")) => {
            }
            other => world.faults.add("a confirmed trip is not what the node says", || {
                format!("{name}, {path}: {other:?}")
            }),
        }
    }
    audited
}

impl crate::report::Faults {
    /// As load processes tell them.
    fn to_map(&self) -> BTreeMap<String, (u64, String)> {
        let fault = |(kind, count, example): (&str, u64, &str)| (kind.to_owned(), (count, example.to_owned()));
        self.iter().map(fault).collect()
    }
}

//! The server's own account of requests beside what their drivers have heard: after the load, after a restart.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddrV4;

use serde_json::Value;

use super::people::Story;
use crate::http;
use crate::message::{write_driver_id, write_request_id};
use crate::report::Run;

/// Most audits that are read.
const AUDITS_MAX: usize = 512;

/// Reads the audits of `stories` and counts as a fault what they tell otherwise.
///
/// # Errors
/// The server does not answer.
pub fn compare(address: SocketAddrV4, stories: &[Story], run: &mut Run) -> io::Result<()> {
    let mut read = 0;
    for story in stories.iter().take(AUDITS_MAX) {
        let id = text_of(|text| write_request_id(text, story.request));
        let (status, body) = http::get(address, &format!("/v1/dispatch/audit/{id}"))?;
        let checked = match (status, serde_json::from_str::<Value>(&body)) {
            (200, Ok(audit)) => check(&audit, story),
            (status, _) => Err(format!("status {status}")),
        };
        if let Err(what) = checked {
            run.faults.add("audit differs", || {
                format!("request {id}: {what} (expected {story:?}): {body}")
            });
        }
        read += 1;
    }
    run.add("audits_compared", "", f64::from(read));
    Ok(())
}

fn text_of(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut text = Vec::new();
    write(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// One winner, the right one; every attempt's end; `seq` without gaps; time that never falls.
fn check(audit: &Value, story: &Story) -> Result<(), String> {
    let events = audit["events"].as_array().ok_or("no events")?;
    let mut at_ms = 0;
    for (place, event) in events.iter().enumerate() {
        if event["seq"].as_u64() != Some(place as u64 + 1) {
            return Err(format!("seq {} at place {place}", event["seq"]));
        }
        let event_ms = event["at_ms"].as_u64().ok_or("no at_ms")?;
        if event_ms < at_ms {
            return Err(format!("at_ms falls at seq {}", place + 1));
        }
        at_ms = event_ms;
    }
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    for (name, expected) in [
        ("REQUEST_RECEIVED", 1),
        ("OFFER_SENT", story.attempt as usize),
        ("OFFER_ACCEPTED", 1),
        ("OFFER_DECLINED", usize::from(story.declined)),
        ("OFFER_TIMED_OUT", usize::from(story.timed_out)),
        ("OFFER_REFUSED", 0),
        ("TRIP_CREATED", 1),
        ("TRIP_ENDED", 1),
    ] {
        if count(name) != expected {
            return Err(format!("{} times {name}", count(name)));
        }
    }
    let won = events.iter().find(|event| event["event"] == "OFFER_ACCEPTED");
    let winner = text_of(|text| write_driver_id(text, story.winner));
    match won {
        Some(event)
            if event["driver_id"] == winner && event["attempt"] == story.attempt && audit["state"] == "ACCEPTED" =>
        {
            Ok(())
        }
        _ => Err("another winner".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STORY: Story = Story {
        request: 1,
        winner: 7,
        attempt: 2,
        declined: true,
        timed_out: false,
    };

    fn audit(events: &[Told]) -> Value {
        let events = events
            .iter()
            .enumerate()
            .map(|(place, (event, driver, attempt, at_ms))| {
                let driver_id = text_of(|text| write_driver_id(text, *driver));
                json!({ "seq": place + 1, "at_ms": at_ms, "event": event, "driver_id": driver_id, "attempt": attempt })
            });
        json!({ "state": "ACCEPTED", "events": events.collect::<Vec<_>>() })
    }

    /// Name, driver, attempt, time.
    type Told = (&'static str, u32, u32, u64);

    const GOOD: [Told; 7] = [
        ("REQUEST_RECEIVED", 0, 0, 1),
        ("OFFER_SENT", 6, 1, 1),
        ("OFFER_DECLINED", 6, 1, 2),
        ("OFFER_SENT", 7, 2, 2),
        ("OFFER_ACCEPTED", 7, 2, 3),
        ("TRIP_CREATED", 7, 2, 3),
        ("TRIP_ENDED", 7, 2, 9),
    ];

    #[test]
    fn an_audit_is_held_against_what_was_seen() {
        assert_eq!(check(&audit(&GOOD), &STORY), Ok(()));
        let with = |change: &dyn Fn(&mut [Told; 7])| {
            let mut events = GOOD;
            change(&mut events);
            check(&audit(&events), &STORY)
        };
        assert!(with(&|events| events[4].1 = 6).is_err(), "another driver");
        assert!(with(&|events| events[5].0 = "OFFER_ACCEPTED").is_err(), "two winners");
        assert!(with(&|events| events[6].3 = 2).is_err(), "time falls");
        assert!(with(&|events| events[2].0 = "OFFER_TIMED_OUT").is_err(), "another end");
        let mut gap = audit(&GOOD);
        gap["events"][3]["seq"] = json!(5);
        assert!(check(&gap, &STORY).is_err());
    }
}

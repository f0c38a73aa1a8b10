//! Audits as short lines that scenarios compare with what they expect.

use super::{Node, Value, eventually, is_unix_ms, number, text};

/// A part of an expected audit: lines of which the order is given, or not.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Exactly this line.
    Line(&'static str),
    /// These lines, in any order.
    AnyOrder(&'static [&'static str]),
    /// This line may stand here.
    Maybe(&'static str),
}

/// Every event that the contract names.
const EVENTS: [&str; 18] = [
    "REQUEST_RECEIVED",
    "OFFER_SENT",
    "OFFER_DELIVERED",
    "OFFER_ACKED",
    "OFFER_ACCEPTED",
    "OFFER_DECLINED",
    "OFFER_TIMED_OUT",
    "OFFER_REFUSED",
    "OFFER_REVOKED",
    "FALLBACK_SENT",
    "FALLBACK_FAILED",
    "REDISPATCHED",
    "CANDIDATES_EXHAUSTED",
    "TRIP_CREATED",
    "TRIP_PICKED_UP",
    "TRIP_ENDED",
    "REQUEST_CANCELLED",
    "REQUEST_UNFULFILLED",
];

/// `EVENT`, with the attempt for what is about an offer and the driver where one comes in.
fn line(event: &Value) -> String {
    let name = text(event, "event");
    if !name.starts_with("OFFER_") {
        return name.to_owned();
    }
    let attempt = number(event, "attempt");
    if matches!(name, "OFFER_SENT" | "OFFER_REFUSED") {
        format!("{name} {attempt} {}", text(event, "driver_id"))
    } else {
        format!("{name} {attempt}")
    }
}

/// The lines of an audit. An `OFFER_SENT` that was refused counts as the refusal alone: the contract leaves open
/// whether it stands there.
pub fn lines(events: &[Value]) -> Vec<String> {
    let all: Vec<String> = events.iter().map(line).collect();
    let refused = |sent: &str| {
        let refusal = sent.replacen("OFFER_SENT", "OFFER_REFUSED", 1);
        refusal != sent && all.contains(&refusal)
    };
    all.iter().filter(|line| !refused(line)).cloned().collect()
}

/// Checks what holds for every audit (clause H7.2): `seq` from 1 without gaps, times that never fall, known events,
/// every attempt after its `OFFER_SENT`, at most one winner.
///
/// # Panics
/// When something of it does not hold.
pub fn assert_sound(request_id: &str, events: &[Value]) {
    let context = || format!("audit of {request_id}: {events:#?}");
    assert!(!events.is_empty(), "{}", context());
    assert_eq!(events[0]["event"], "REQUEST_RECEIVED", "{}", context());
    let mut at_ms = 0;
    for (index, event) in events.iter().enumerate() {
        assert_eq!(number(event, "seq"), index as u64 + 1, "{}", context());
        let now = number(event, "at_ms");
        assert!(is_unix_ms(now) && now >= at_ms, "{}", context());
        at_ms = now;
        assert!(EVENTS.contains(&text(event, "event")), "{}", context());
        assert!(!text(event, "node").is_empty(), "{}", context());
        if let Some(channel) = event.get("channel").filter(|channel| !channel.is_null()) {
            assert!(channel.is_string(), "{}", context());
        }
    }
    assert_attempts(events, &context);
    for once in ["REQUEST_RECEIVED", "OFFER_ACCEPTED", "TRIP_CREATED", "TRIP_ENDED"] {
        assert!(count(events, once) <= 1, "{once} more than once; {}", context());
    }
    let ends = ["OFFER_ACCEPTED", "REQUEST_CANCELLED", "REQUEST_UNFULFILLED"];
    let ends: usize = ends.iter().map(|end| count(events, end)).sum();
    assert!(ends <= 1, "a request ends once; {}", context());
    assert_eq!(
        count(events, "OFFER_ACCEPTED"),
        count(events, "TRIP_CREATED"),
        "{}",
        context()
    );
}

fn assert_attempts(events: &[Value], context: &dyn Fn() -> String) {
    let mut begun = 0;
    for event in events {
        let name = text(event, "event");
        if !name.starts_with("OFFER_") {
            continue;
        }
        let attempt = number(event, "attempt");
        let begins = name == "OFFER_SENT" || (name == "OFFER_REFUSED" && attempt > begun);
        if begins {
            assert_eq!(attempt, begun + 1, "attempts have no gaps; {}", context());
            begun = attempt;
        }
        assert!((1..=begun).contains(&attempt), "an attempt not begun; {}", context());
    }
}

/// How often an event stands in an audit.
pub fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["event"] == name).count()
}

impl Node {
    /// The audit's events, checked for what holds for every audit.
    pub async fn audit(&self, request_id: &str) -> Vec<Value> {
        let body = self.audit_body(request_id).await;
        body["events"].as_array().expect("events").clone()
    }

    /// The audit's whole answer, its events checked.
    pub async fn audit_body(&self, request_id: &str) -> Value {
        let path = format!("/v1/dispatch/audit/{request_id}");
        let body = self.get(&path).await.ok(200);
        assert_eq!(body["request_id"], request_id, "{body}");
        text(&body, "state");
        assert_sound(request_id, body["events"].as_array().expect("events"));
        body
    }

    /// Waits until this line stands in the audit.
    pub async fn until_audit(&self, request_id: &str, wanted: &str) {
        let what = format!("{wanted:?} in the audit of {request_id}");
        eventually(&what, || async {
            let events = self.audit(request_id).await;
            lines(&events).iter().any(|line| line == wanted).then_some(())
        })
        .await;
    }

    /// Waits until the audit ends with what `expected` ends with, and compares all of it.
    pub async fn assert_audit(&self, request_id: &str, expected: &[Shape]) {
        let count_least = expected.iter().map(Shape::count_least).sum::<usize>();
        let what = format!("{count_least} events in the audit of {request_id}");
        let found = eventually(&what, || async {
            let found = lines(&self.audit(request_id).await);
            (found.len() >= count_least).then_some(found)
        })
        .await;
        assert!(
            matches(&found, expected),
            "audit of {request_id}: {found:#?}\nexpected: {expected:#?}"
        );
    }
}

impl Shape {
    fn count_least(&self) -> usize {
        match self {
            Self::Line(_) => 1,
            Self::AnyOrder(lines) => lines.len(),
            Self::Maybe(_) => 0,
        }
    }
}

/// One expected line after the other, from a text with a line each; `?` before a line means that it may be missing,
/// `{a | b}` means both in any order.
pub fn shape(text: &'static str) -> Vec<Shape> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            if let Some(inner) = line.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                let lines: Vec<&'static str> = inner.split('|').map(str::trim).collect();
                Shape::AnyOrder(lines.leak())
            } else if let Some(maybe) = line.strip_prefix('?') {
                Shape::Maybe(maybe.trim())
            } else {
                Shape::Line(line)
            }
        })
        .collect()
}

fn matches(found: &[String], expected: &[Shape]) -> bool {
    let Some((shape, rest)) = expected.split_first() else {
        return found.is_empty();
    };
    match shape {
        Shape::Line(line) => found
            .split_first()
            .is_some_and(|(first, tail)| first == line && matches(tail, rest)),
        Shape::Maybe(line) => {
            let taken = found
                .split_first()
                .is_some_and(|(first, tail)| first == line && matches(tail, rest));
            taken || matches(found, rest)
        }
        Shape::AnyOrder(lines) => {
            if found.len() < lines.len() {
                return false;
            }
            let (head, tail) = found.split_at(lines.len());
            let mut head: Vec<&str> = head.iter().map(String::as_str).collect();
            let mut wanted = lines.to_vec();
            head.sort_unstable();
            wanted.sort_unstable();
            head == wanted && matches(tail, rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_match_what_they_say() {
        let expected = shape(
            "A
             ? B
             {C | D}
             E",
        );
        let check = |found: &[&str], expect: bool| {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(matches(&found, &expected), expect, "{found:?}");
        };
        check(&["A", "B", "C", "D", "E"], true);
        check(&["A", "D", "C", "E"], true);
        check(&["A", "C", "C", "E"], false);
        check(&["A", "C", "D"], false);
        check(&["A", "C", "D", "E", "E"], false);
    }

    #[test]
    fn a_refused_offer_is_one_line() {
        let sent = serde_json::json!({"event": "OFFER_SENT", "attempt": 1, "driver_id": "d"});
        let refused = serde_json::json!({"event": "OFFER_REFUSED", "attempt": 1, "driver_id": "d"});
        assert_eq!(lines(&[sent, refused]), ["OFFER_REFUSED 1 d"]);
    }
}

//! Queues: who goes first, and what says nothing about it.

use super::story::{CANCELLED, EVENT, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, audit_of};
use dispatchd_sim::checks::Check;
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::witness::{Ask, Expect};
use dispatchd_sim::words::Class;

/// A node with one queue for all that comes.
fn one_shard() -> Story {
    Story::of(Expect {
        shards: 1,
        ..Story::expect()
    })
}

/// Requests 1 and 2 of these classes are posted; their calls.
fn two_posts(story: &mut Story, classes: [Class; 2]) -> [u32; 2] {
    classes.map(|class| story.post(class, 0b10))
}

/// Both are taken in, at these times after the start, cancelled, and everything is read.
fn taken_at(story: &mut Story, classes: [Class; 2], calls: [u32; 2], at_ms: [u64; 2]) {
    let mut events = EVENT.to_owned();
    for (request, (call, at_ms)) in (1..).zip(calls.into_iter().zip(at_ms)) {
        let class = classes[request as usize - 1].as_str();
        let body = format!(
            "{{\"request_id\":\"r{request}\",\"state\":\"PENDING_MATCH\",\"attempt\":0,\"driver_id\":null,\"duplicate\":false}}"
        );
        story.answer(call, 202, &body);
        let body = format!("{{\"request_id\":\"r{request}\",\"state\":\"CANCELLED\"}}");
        story.asked(Ask::Cancel(request, NO_REASON), 200, &body);
        let at_ms = WALL_MS + at_ms;
        let told = audit_of(
            request,
            at_ms,
            "\"d1\"",
            "CANCELLED",
            &[("REQUEST_CANCELLED", at_ms, "")],
        );
        story.asked(Ask::Audit(request), 200, &told.replace("standard", class));
        events += &EVENT
            .replace("r0", &format!("r{request}"))
            .replace("\"cursor\":1", &format!("\"cursor\":{}", request + 1))
            .replace("1009001", &format!("{at_ms}"));
    }
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, &events);
}

#[test]
fn economy_is_taken_in_before_premium() {
    let classes = [Class::Premium, Class::Economy];
    let mut story = one_shard();
    let calls = two_posts(&mut story, classes);
    taken_at(&mut story, classes, calls, [900, 100]);
    story.finds(Check::ClassOrder);

    let mut story = one_shard();
    let calls = two_posts(&mut story, classes);
    taken_at(&mut story, classes, calls, [100, 900]);
    story.is_good();
}

#[test]
fn a_post_behind_others_on_its_connection_waits_for_them() {
    let classes = [Class::Premium, Class::Economy];
    // It came to the front when the other one had been served.
    let mut story = one_shard();
    let calls = two_posts(&mut story, classes);
    story.go().sent_behind(calls[0]);
    story.now_us = 800_000;
    story.go().came_to_front(calls[0]);
    taken_at(&mut story, classes, calls, [900, 100]);
    story.is_good();

    // It came to the front long before.
    let mut story = one_shard();
    let calls = two_posts(&mut story, classes);
    story.go().sent_behind(calls[0]);
    story.go().came_to_front(calls[0]);
    story.now_us = 800_000;
    taken_at(&mut story, classes, calls, [900, 400]);
    story.finds(Check::ClassOrder);

    // It never did, as far as anybody knows.
    let mut story = one_shard();
    let calls = two_posts(&mut story, classes);
    story.go().sent_behind(calls[0]);
    taken_at(&mut story, classes, calls, [900, 100]);
    story.is_good();
}

#[test]
fn who_has_waited_longer_by_a_step_goes_first() {
    // A step is a second: the economy one has waited two of them and more when the premium one comes.
    let classes = [Class::Economy, Class::Premium];
    for (at_ms, is_good) in [([4_000, 3_500], false), ([3_500, 4_000], true)] {
        let mut story = one_shard();
        let first = story.post(classes[0], 0b10);
        story.now_us = 3_000_000;
        let second = story.post(classes[1], 0b10);
        taken_at(&mut story, classes, [first, second], at_ms);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::ClassOrder);
        }
    }
}

//! Offers, trips and outcomes: what drivers and callers must never see.

use super::story::{
    CANCELLED, EVENT, EXPIRES_MS, LEFT_MS, R0, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, audit_of, shown, taken,
};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::ids::Offer;
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::witness::Ask;
use dispatchd_sim::words::{Class, DriverState, Move, Revoke};
#[test]
fn a_good_story() {
    let mut story = Story::new();
    story.hear(0, shown(R0));
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.is_good();
}

#[test]
fn two_winners() {
    let mut story = Story::new();
    story.win(0, R0, "t-1");
    story.is_good();
    story.win(1, Offer { request: 0, attempt: 2 }, "t-2");
    story.finds(Check::OneWinner);
}

#[test]
fn two_offers_and_an_offer_beside_a_trip() {
    let mut story = Story::new();
    story.post(Class::Standard, 0b1111);
    story.hear(0, shown(R0));
    story.hear(0, shown(Offer { request: 1, attempt: 1 }));
    story.finds(Check::OneOffer);

    let mut story = Story::new();
    story.post(Class::Standard, 0b1111);
    story.win(0, R0, "t-1");
    story.hear(0, shown(Offer { request: 1, attempt: 1 }));
    story.finds(Check::OneTrip);
}

#[test]
fn two_trips() {
    let mut story = Story::new();
    story.post(Class::Standard, 0b1111);
    story.win(0, R0, "t-1");
    let answer = "{\"request_id\":\"r1\",\"outcome\":\"CONFIRMED\",\"trip_id\":\"t-2\"}";
    let ask = Ask::Response {
        request: 1,
        driver: 0,
        attempt: Some(1),
        accept: true,
    };
    story.asked(ask, 200, answer);
    story.finds(Check::OneTrip);
}

#[test]
fn answers_that_are_taken_back() {
    let missing = "{\"code\":\"no_such_request\"}";
    let mut story = Story::new();
    story.asked(Ask::Audit(0), 404, missing);
    story.finds(Check::AnswerKept);

    // The same before anything was answered is no violation.
    let mut story = Story::new();
    story.post(Class::Standard, 1);
    story.asked(Ask::Audit(1), 404, missing);
    story.is_good();
}

#[test]
fn a_confirmation_that_is_lost() {
    let mut story = Story::new();
    let trip = story.win(0, R0, "t-1");
    story.connect(0, 1, 50, DriverState::EnRoute, Some(trip));
    story.is_good();
    story.connect(0, 2, 51, DriverState::Available, None);
    story.finds(Check::ConfirmedKept);
}

#[test]
fn events_that_change_or_are_skipped() {
    let read = Ask::Events {
        node: 0,
        after: Some(0),
        consumer: None,
        wait_ms: 0,
        limit: 500,
    };
    let mut story = Story::new();
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    story.asked(read, 200, EVENT);
    story.is_good();
    story.asked(read, 200, &EVENT.replace("1009001", "1009002"));
    story.finds(Check::EventKept);

    let mut story = Story::new();
    story.asked(read, 200, &EVENT.replace("\"cursor\":1", "\"cursor\":2"));
    story.finds(Check::EventsInOrder);
}

#[test]
fn a_request_without_an_end() {
    let mut story = Story::new();
    story.last(&audit("OFFER_SENT", &[SENT]), RECORD, "");
    story.finds(Check::EndsInTime);
}

#[test]
fn an_offer_that_ends_late_or_moves() {
    let mut story = Story::new();
    let late = ("OFFER_TIMED_OUT", 1_030_000, TIMED_OUT.2);
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    let end = ("REQUEST_CANCELLED", 1_030_000, "");
    story.last(&audit("CANCELLED", &[SENT, late, end]), RECORD, EVENT);
    story.finds(Check::OfferInTime);

    let mut story = Story::new();
    story.hear(0, shown(R0));
    story.connect(0, 1, 50, DriverState::Offered, None);
    let moved = Heard::Offer {
        offer: R0,
        class: Class::Standard,
        expires_at_ms: EXPIRES_MS + 1,
        ttl_ms: LEFT_MS,
        trip_intact: true,
    };
    story.hear_on(0, 1, moved);
    story.finds(Check::OfferInTime);
}

#[test]
fn two_outcomes() {
    let mut story = Story::new();
    story.hear(0, shown(R0));
    story.say(0, Say::Decline(R0));
    story.hear(0, Heard::Declined { offer: R0 });
    story.is_good();
    let answer = "{\"request_id\":\"r0\",\"outcome\":\"CONFIRMED\",\"trip_id\":\"t-2\"}";
    let ask = Ask::Response {
        request: 0,
        driver: 0,
        attempt: Some(1),
        accept: true,
    };
    story.asked(ask, 200, answer);
    story.finds(Check::OneOutcome);
}

#[test]
fn outcomes_without_a_cause() {
    let mut story = Story::new();
    let trip = story.witness.ids.read_trip("t-1");
    story.hear(0, shown(R0));
    story.hear(0, Heard::Confirmed { offer: R0, trip });
    story.finds(Check::Caused);

    let mut story = Story::new();
    story.hear(0, shown(R0));
    let (offer, reason) = (R0, Revoke::Timeout);
    story.hear(0, Heard::Revoked { offer, reason });
    story.finds(Check::Caused);

    // Who has won is told that it is en route, before anything else.
    let mut story = Story::new();
    story.win(0, R0, "t-1");
    let (state, trip) = (DriverState::Available, None);
    story.hear(0, Heard::State { state, trip });
    story.finds(Check::Caused);

    let mut story = Story::new();
    let trip = story.win(0, R0, "t-1");
    let state = DriverState::EnRoute;
    story.hear(
        0,
        Heard::State {
            state,
            trip: Some(trip),
        },
    );
    story.say(0, Say::Trip(trip, Move::Arrived));
    let state = DriverState::Available;
    story.hear(0, Heard::State { state, trip: None });
    story.finds(Check::Caused);
}

#[test]
fn a_shift_that_is_lost() {
    let (offline, available) = (DriverState::Offline, DriverState::Available);
    let told = Heard::State {
        state: offline,
        trip: None,
    };
    let mut story = Story::new();
    story.say(0, Say::Shift(false));
    story.hear(0, told);
    story.connect(0, 1, 50, available, None);
    story.finds(Check::ConfirmedKept);

    // By a WELCOME as well, and across a restart.
    let mut story = Story::new();
    story.say(0, Say::Shift(false));
    story.connect(0, 1, 50, offline, None);
    story.restart();
    story.connect(0, 2, 51, available, None);
    story.finds(Check::ConfirmedKept);

    // What was said and not answered may be lost; what was said in between may have arrived.
    let mut story = Story::new();
    story.say(0, Say::Shift(false));
    story.restart();
    story.connect(0, 1, 50, available, None);
    story.go().said(0, 1, Say::Shift(false));
    story.go().heard(0, 1, told);
    story.go().said(0, 1, Say::Shift(true));
    story.connect(0, 2, 51, available, None);
    story.go().said(0, 2, Say::Shift(true));
    story.go().said(0, 2, Say::Shift(false));
    story.go().heard(0, 2, told);
    story.connect(0, 3, 52, available, None);
    story.is_good();
}

/// Of two sockets opened at once the sessions say which came last. What is said on that one counts, also when the other
/// one's welcome arrives later; what is said on the older one was not heard, or the newer one's welcome would say so.
#[test]
fn a_shift_that_is_lost_between_two_sockets() {
    for (session, is_good) in [(51, true), (49, false)] {
        let mut story = Story::new();
        story.say(0, Say::Shift(false));
        story.go().socket_opened(0, 1);
        story.go().socket_opened(0, 2);
        story.welcome(0, 1, session, DriverState::Offline, None);
        story.go().said(0, 1, Say::Shift(true));
        story.welcome(0, 2, 50, DriverState::Offline, None);
        story.connect(0, 3, 60, DriverState::Available, None);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::ConfirmedKept);
        }
    }
}

#[test]
fn what_drivers_say_in_vain() {
    let delivered = ("OFFER_DELIVERED", 1_000_006, TIMED_OUT.2);
    let by_socket = ",\"attempt\":1,\"driver_id\":\"d0\",\"channel\":\"websocket\"";
    let accepted = ("OFFER_ACCEPTED", 1_000_020, by_socket);
    let made = ",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{\"trip_id\":\"t-1\"}";
    let created = ("TRIP_CREATED", 1_000_020, made);
    for said in [Move::Pickup, Move::Complete, Move::Cancel] {
        let mut story = Story::new();
        let trip = story.win(0, R0, "t-1");
        story.say(0, Say::Trip(trip, said));
        story.now_us += 10_000_000;
        story.last(&audit("ACCEPTED", &[SENT, delivered, accepted, created]), "", "");
        story.finds(Check::Answered);
    }

    // A receipt that the node had long before the offer ended.
    let mut story = Story::new();
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.now_us += 6_000_000;
    story.hear(0, shown(R0));
    story.say(0, Say::Ack(R0));
    story.say(0, Say::Ping);
    let server_ms = WALL_MS + 6_100;
    story.now_us += 1_000_000;
    story.hear(0, Heard::Pong { server_ms });
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    let delivered = ("OFFER_DELIVERED", WALL_MS + 6_010, TIMED_OUT.2);
    let lacks = audit("CANCELLED", &[SENT, delivered, TIMED_OUT, CANCELLED]);
    story.last(&lacks, RECORD, EVENT);
    story.finds(Check::AuditComplete);
}

#[test]
fn offers_that_a_socket_had_are_delivered() {
    let delivered = ("OFFER_DELIVERED", 1_000_020, TIMED_OUT.2);
    // Heard for so long before the socket was over, and whether the audit must tell.
    for (lasts_ms, has, is_good) in [(1_000, true, true), (1_000, false, false), (20, false, true)] {
        let mut story = Story::new();
        story.hear(0, shown(R0));
        story.now_us += lasts_ms * 1_000;
        story.go().socket_over(0, 0, "dropped");
        story.now_us += 10_000_000;
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        let events = [SENT, delivered, TIMED_OUT, CANCELLED];
        let events: Vec<_> = events.into_iter().filter(|event| has || *event != delivered).collect();
        story.last(&audit("CANCELLED", &events), RECORD, EVENT);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::AuditComplete);
        }
    }
}

#[test]
fn economy_before_premium() {
    let mut story = Story::new();
    for class in [Class::Premium, Class::Economy] {
        let call = story.post(class, 1);
        let request = call;
        story.answer(call, 202, &taken(request));
    }
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    let waits = |request: u32, sent_ms: u64, end_ms: u64| {
        let sent = format!(
            ",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{{\"expires_at_ms\":{}}}",
            sent_ms + 8_995
        );
        let end = ",\"attempt\":1,\"driver_id\":\"d0\"";
        audit_of(
            request,
            1_000_100,
            "\"d0\"",
            "CANCELLED",
            &[
                ("OFFER_SENT", sent_ms, sent.as_str()),
                ("OFFER_TIMED_OUT", end_ms, end),
                ("REQUEST_CANCELLED", end_ms, ""),
            ],
        )
    };
    story.now_us += 28_000_000;
    for request in [1, 2] {
        let body = format!("{{\"request_id\":\"r{request}\",\"state\":\"CANCELLED\"}}");
        story.asked(Ask::Cancel(request, NO_REASON), 200, &body);
    }
    let of_class = |class: &str, audit: String| audit.replace("standard", class);
    story.asked(Ask::Audit(1), 200, &of_class("premium", waits(1, 1_020_000, 1_028_995)));
    story.asked(Ask::Audit(2), 200, &of_class("economy", waits(2, 1_010_000, 1_018_995)));
    let rows = [(2, 1_010_000, 1_018_995), (1, 1_020_000, 1_028_995)].map(|(request, sent, end)| {
        RECORD
            .replace("r0", &format!("r{request}"))
            .replace("1000005", &format!("{sent}"))
            .replace("1009000", &format!("{end}"))
    });
    let [second, first] = rows;
    let events = format!(
        "{EVENT}{}{}",
        EVENT
            .replace("r0", "r2")
            .replace("\"cursor\":1", "\"cursor\":2")
            .replace("1009001", "1018995"),
        EVENT
            .replace("r0", "r1")
            .replace("\"cursor\":1", "\"cursor\":3")
            .replace("1009001", "1028995")
    );
    story.last(
        &audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]),
        &format!("{first},{second},{RECORD}"),
        &events,
    );
    story.finds(Check::ClassOrder);
}

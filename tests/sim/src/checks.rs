//! The checks by name, how often each was made, and what a violation is.

use crate::ids::{Driver, Request};

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// A check. The numbers are those of the contract, section 4.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check { $($(#[$doc])* $name),+ }

        impl Check {
            /// All, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// For people.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

checks!(
    /// A request has one driver, whoever says so and whenever.
    OneWinner = "1 one winner",
    /// A driver holds one offer at a time.
    OneOffer = "2 one open offer for each driver",
    /// A driver has one trip at a time, and no offer beside it.
    OneTrip = "2 one trip for each driver",
    /// What was answered 2xx is there later.
    AnswerKept = "3 what was answered is kept",
    /// What was sent on a socket is true later.
    ConfirmedKept = "3 what was confirmed is kept",
    /// A cursor has the same event, always.
    EventKept = "3 events are kept",
    /// An accepted request ends.
    EndsInTime = "4 every request ends in time",
    /// An offer ends at its time, not before, not long after; a resumed one as well.
    OfferInTime = "4 offers end at their time",
    /// Everyone hears the same outcome, and the audit says it.
    OneOutcome = "5 one outcome for everyone",
    /// Nothing happens that nobody asked for.
    Caused = "5 every outcome has its cause",
    /// Premium first, first come first served.
    ClassOrder = "6 classes in order",
    /// An audit is one that a request can have.
    AuditTrue = "7 audits make sense",
    /// An audit is never rewritten.
    AuditGrows = "7 audits only grow",
    /// An audit holds what was seen.
    AuditComplete = "7 audits are complete",
    /// The same message, the same answer; no state is taken back.
    SameAnswer = "same question, same answer",
    /// Calls and messages are answered.
    Answered = "everybody is answered",
    /// What is dispatched is what was asked for, and the defaults where nothing was.
    AsAsked = "dispatched as asked for",
    /// One dispatch, whatever is posted how often; nothing from what was turned away.
    OneDispatch = "repeats dispatch nothing",
    /// A session grows with every connect.
    SessionGrows = "sessions grow",
    /// Events of a request in order and complete, pages without gaps.
    EventsInOrder = "events complete and in order",
    /// Dispatch records say what the audits say.
    RecordsMatch = "records match the audits",
    /// Views say what the audits say.
    ViewsMatch = "views match the audits",
    /// Bytes and messages are those of the contract.
    Protocol = "bytes as in the contract",
    /// A node that drains says so and takes nothing new.
    Drains = "a node that drains says so",
    /// The node runs unless it must not.
    NodeLives = "the node lives",
    /// The same seed, the same run.
    Repeats = "a seed repeats itself",
);

/// How often each check was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts([u64; Check::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Check::ALL.len()])
    }
}

impl Counts {
    /// One more.
    pub fn add(&mut self, check: Check) {
        self.0[check as usize] += 1;
    }

    /// All of another run.
    pub fn add_all(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// How often this one was made.
    pub fn of(&self, check: Check) -> u64 {
        self.0[check as usize]
    }
}

/// What a violation is about; for the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// A request.
    pub request: Option<Request>,
    /// Another one.
    pub other: Option<Request>,
    /// A driver.
    pub driver: Option<Driver>,
}

impl About {
    /// A request.
    pub const fn request(request: Request) -> Self {
        Self {
            request: Some(request),
            other: None,
            driver: None,
        }
    }

    /// A driver.
    pub const fn driver(driver: Driver) -> Self {
        Self {
            request: None,
            other: None,
            driver: Some(driver),
        }
    }

    /// A request and a driver.
    pub const fn both(request: Request, driver: Driver) -> Self {
        Self {
            request: Some(request),
            other: None,
            driver: Some(driver),
        }
    }
}

/// The first check of a run that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// When it was noticed, simulated microseconds.
    pub at_us: u64,
    /// Whom to look at.
    pub about: About,
    /// What is wrong, for people.
    pub text: String,
}

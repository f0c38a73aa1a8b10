//! The durability port of one request, and what the store is told at each commit.

use dispatchd::fsm::fold::{self, Fold};
use dispatchd::fsm::request::Request;
use dispatchd::fsm::types::{LogEntry, Published, RecordRow};
use std::collections::VecDeque;

/// What a commit means to the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    pub published: Vec<Published>,
    pub rows: Vec<RecordRow>,
    /// The log of a request that has ended with this commit.
    pub ended: Option<Vec<LogEntry>>,
}

impl Consequences {
    /// Of the steps `log[from..]`, as recovery derives them: from the log up to here and its fold.
    pub fn recovered(request: &Request, log: &[LogEntry], from: usize) -> Self {
        let fold = Fold::of(log).expect("a committed log folds");
        Self::derive(request, log, from, &fold)
    }

    fn derive(request: &Request, log: &[LogEntry], from: usize, fold: &Fold) -> Self {
        let mut told = Self::default();
        fold::published(request.id(), log, from, fold, &mut told.published);
        fold::rows(request.id(), log, from, fold, &mut told.rows);
        told.ended = fold.is_closed().then(|| log.to_vec());
        told
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    from: usize,
    to: usize,
    wait: bool,
}

/// Records in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub struct Port {
    written: VecDeque<Record>,
    committed: usize,
    fenced: bool,
}

impl Port {
    /// How many steps are durable.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// How many records are not durable yet.
    pub fn written(&self) -> usize {
        self.written.len()
    }

    /// Whether the actor waits for an answer.
    pub fn waits(&self) -> bool {
        self.written.iter().any(|record| record.wait)
    }

    pub fn was_fenced(&self) -> bool {
        self.fenced
    }

    pub fn write(&mut self, from: usize, to: usize, wait: bool) {
        assert!(!self.fenced, "nothing is written after a fence");
        assert!(from < to, "an empty record");
        let last = self.written.back().map_or(self.committed, |last| last.to);
        assert_eq!(from, last, "records follow one another");
        assert!(!self.waits(), "one decision at a time");
        self.written.push_back(Record { from, to, wait });
    }

    /// Commits the oldest record; says whether the actor waits for it. Checks that what the store is told with the
    /// actor's present fold is what recovery would derive.
    pub fn commit(&mut self, request: &Request) -> Option<bool> {
        let Record { from, to, wait } = self.written.pop_front()?;
        self.committed = to;
        let log = &request.log()[..to];
        let mut told = Consequences::derive(request, log, from, request.fold());
        told.ended = told.ended.filter(|_| to == request.log().len());
        assert_eq!(
            told,
            Consequences::recovered(request, log, from),
            "live and recovered differ"
        );
        Some(wait)
    }

    /// The record that waits is refused, and with it whatever was written before and is not durable.
    pub fn fence(&mut self) {
        self.fenced = true;
        self.written.clear();
    }

    /// The process ends: `survivors` records more than the committed ones are found again. Returns the steps kept.
    pub fn crash(&mut self, request: &Request, survivors: usize) -> usize {
        for _ in 0..survivors {
            let _ = self.commit(request);
        }
        self.written.clear();
        self.committed
    }
}

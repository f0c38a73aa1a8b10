//! The table of metrics. A line is a field that its thread writes and a family that `/metrics` shows.

use super::instruments::{Counter, Family, Gauge, Histogram, Instrument};
use super::labels::{
    BadInput, CloseCause, ConnectionKind, Label, LwtKind, MemoryKind, MessageIn, MessageOut, OfferEvent, RequestEnd,
    StatusClass,
};
use super::text::Encoder;
use crate::fsm::types::{DriverState, Priority};

/// Counters by the values of a label.
pub type Counters<L, const N: usize> = Family<L, Counter, N>;
/// Gauges by the values of a label.
pub type Gauges<L, const N: usize> = Family<L, Gauge, N>;

const DRIVER_STATES: usize = <DriverState as Label>::ALL.len();
const PRIORITIES: usize = Priority::ALL.len();

macro_rules! metrics {
    ($(#[$doc:meta])* $set:ident { $($field:ident: $type:ty, $name:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $set {
            $(#[doc = $help] pub $field: $type,)+
        }

        impl $set {
            /// Writes every family, summed over `sets`.
            pub(super) fn encode(sets: &[&Self], out: &mut Encoder) {
                $(
                    out.family($name, <$type as Instrument>::TYPE, $help);
                    let parts: Vec<&$type> = sets.iter().map(|set| &set.$field).collect();
                    <$type as Instrument>::encode(&parts, $name, "", out);
                )+
            }
        }
    };
}

metrics! {
    /// What one shard counts. Written by the shard's thread alone.
    ShardMetrics {
        connections: Gauges<ConnectionKind, { ConnectionKind::COUNT }>, "dispatchd_connections",
            "Open connections.";
        connections_accepted: Counter, "dispatchd_connections_accepted_total",
            "Connections accepted.";
        connections_closed: Counters<CloseCause, { CloseCause::COUNT }>, "dispatchd_connections_closed_total",
            "Connections closed, slow consumers and lost heartbeats among them.";
        bytes_received: Counter, "dispatchd_received_bytes_total",
            "Bytes received from sockets.";
        bytes_sent: Counter, "dispatchd_sent_bytes_total",
            "Bytes written to sockets.";
        bad_input: Counters<BadInput, { BadInput::COUNT }>, "dispatchd_bad_input_total",
            "Input that the contract does not allow.";

        http_requests: Counters<StatusClass, { StatusClass::COUNT }>, "dispatchd_http_requests_total",
            "HTTP requests answered.";
        messages_received: Counters<MessageIn, { MessageIn::COUNT }>, "dispatchd_messages_received_total",
            "Messages from drivers.";
        messages_sent: Counters<MessageOut, { MessageOut::COUNT }>, "dispatchd_messages_sent_total",
            "Messages to drivers.";
        heartbeats: Counter, "dispatchd_heartbeats_total",
            "Heartbeats of drivers: PING messages and ping frames.";

        drivers_throttled: Counter, "dispatchd_drivers_throttled_total",
            "Times that a driver's socket was read more slowly, as it said more than it may.";

        drivers: Gauges<DriverState, DRIVER_STATES>, "dispatchd_drivers",
            "Drivers held in memory.";
        offers: Counters<OfferEvent, { OfferEvent::COUNT }>, "dispatchd_offers_total",
            "What happened to offers.";
        requests_received: Counters<Priority, PRIORITIES>, "dispatchd_requests_received_total",
            "Dispatch requests made durable.";
        requests_repeated: Counter, "dispatchd_requests_repeated_total",
            "Repeated dispatch requests, answered as duplicates.";
        requests_ended: Counters<RequestEnd, { RequestEnd::COUNT }>, "dispatchd_requests_ended_total",
            "Dispatch requests ended.";
        requests_open: Gauge, "dispatchd_requests_open",
            "Dispatch requests that have not ended.";
        redispatches_requested: Counter, "dispatchd_redispatches_requested_total",
            "Times that a request ran out of candidates.";
        requests_waiting: Gauge, "dispatchd_requests_waiting",
            "Requests that wait for a driver who is offered to another.";
        ingress_queue: Gauges<Priority, PRIORITIES>, "dispatchd_ingress_queue_requests",
            "Dispatch requests that wait to be taken in.";
        ingress_shed: Counters<Priority, PRIORITIES>, "dispatchd_ingress_shed_total",
            "Dispatch requests turned away with 429.";

        offer_latency: Histogram, "dispatchd_offer_latency_seconds",
            "From the POST to the OFFER written to the driver's socket.";
        redispatch_latency: Histogram, "dispatchd_redispatch_latency_seconds",
            "From a decline or timeout to the next OFFER written.";
        confirm_latency: Histogram, "dispatchd_confirm_latency_seconds",
            "From an ACCEPT to its CONFIRMED written.";

        journal_commits: Counter, "dispatchd_journal_commits_total",
            "Group commits made durable.";
        journal_records: Counter, "dispatchd_journal_records_total",
            "Records made durable.";
        journal_bytes: Counter, "dispatchd_journal_written_bytes_total",
            "Bytes written to the journal, padding included.";
        journal_commit_latency: Histogram, "dispatchd_journal_commit_latency_seconds",
            "From the submission of a group commit to its completion.";
        journal_backlog_bytes: Gauge, "dispatchd_journal_backlog_bytes",
            "Bytes that wait for a group commit.";
        journal_segments: Gauge, "dispatchd_journal_segments",
            "Segments that are still needed.";
        store_backlog: Gauge, "dispatchd_store_backlog_records",
            "Committed records that the store has not confirmed.";

        memory: Gauges<MemoryKind, { MemoryKind::COUNT }>, "dispatchd_memory_bytes",
            "Memory that the shards' tables and buffers take.";
        ring_slots: Gauge, "dispatchd_ring_slots",
            "Slots of the rings' tables of direct descriptors that hold a socket, looked at once a second.";
        link_letters: Counter, "dispatchd_link_letters_total",
            "Letters of other nodes read.";
        requests_handed_over: Counter, "dispatchd_requests_handed_over_total",
            "Requests that other nodes took over from this one while it drained.";
        link_bounces: Counter, "dispatchd_link_bounces_total",
            "Letters to drivers that came back, as the driver had gone to another node.";
        link_refused: Counter, "dispatchd_link_refused_total",
            "Letters to other nodes that were not taken: too much waited.";
        timers_armed: Gauge, "dispatchd_timers_armed",
            "Timers armed.";
        timers_fired: Counter, "dispatchd_timers_fired_total",
            "Timers fired.";
        turns: Counter, "dispatchd_turns_total",
            "Turns of the shards' loops.";
        ring_sleeps: Counter, "dispatchd_ring_sleeps_total",
            "Times that a shard slept in its ring.";
        ring_completions: Counter, "dispatchd_ring_completions_total",
            "Completions reaped from the rings.";
        recv_buffers_exhausted: Counter, "dispatchd_recv_buffers_exhausted_total",
            "Receives that found no buffer and were tried again.";
        mailbox_letters: Counter, "dispatchd_mailbox_letters_total",
            "Letters sent to other shards.";
        mailbox_overflows: Counter, "dispatchd_mailbox_overflows_total",
            "Letters that found a mailbox full and waited.";
        registry_backlog: Gauge, "dispatchd_registry_backlog_drivers",
            "Drivers whose entry in the fleet's registry waits to be written.";
        log_lines_suppressed: Counter, "dispatchd_log_lines_suppressed_total",
            "Log lines left out by the rate limit.";
    }
}

metrics! {
    /// What the thread that speaks with Cassandra counts. All 0 without a fleet.
    CassandraMetrics {
        up: Gauge, "dispatchd_cassandra_up",
            "1 while Cassandra answers.";
        backlog: Gauge, "dispatchd_cassandra_backlog_commits",
            "Commits in the embedded store that Cassandra does not have yet.";
        backlog_bytes: Gauge, "dispatchd_cassandra_backlog_bytes",
            "Size of these commits.";
        backlog_age_seconds: Gauge, "dispatchd_cassandra_backlog_age_seconds",
            "Age of the oldest of these commits.";
        records: Counter, "dispatchd_cassandra_records_total",
            "Dispatch records written to Cassandra.";
        requests: Counter, "dispatchd_cassandra_requests_total",
            "Ended requests written to Cassandra.";
        batches: Counter, "dispatchd_cassandra_batches_total",
            "Writes of one partition that Cassandra has confirmed.";
        retries: Counter, "dispatchd_cassandra_retries_total",
            "Writes that failed and were tried again.";
        write_latency: Histogram, "dispatchd_cassandra_write_latency_seconds",
            "From the start of a write that succeeded to its confirmation.";
        reads: Counter, "dispatchd_cassandra_reads_total",
            "Questions put to Cassandra.";
        read_failures: Counter, "dispatchd_cassandra_read_failures_total",
            "Questions that Cassandra could not be asked or did not answer.";
        read_latency: Histogram, "dispatchd_cassandra_read_latency_seconds",
            "From a question to its answer.";
        lwts: Counters<LwtKind, { LwtKind::COUNT }>, "dispatchd_cassandra_lwt_total",
            "Conditional writes and serial reads sent to Cassandra, a round of Paxos each, by what they were for.";
        lwts_unknown: Counter, "dispatchd_cassandra_lwt_unknown_total",
            "Conditional writes of which it was not known at first whether they were applied.";
        lwt_latency: Histogram, "dispatchd_cassandra_lwt_latency_seconds",
            "From the first conditional write of a decision to the knowledge that it stands, or does not.";
        decisions: Gauge, "dispatchd_cassandra_decisions_waiting",
            "Decisions of requests that are not known to stand yet.";
        adopted: Counter, "dispatchd_requests_adopted_total",
            "Requests taken over: from nodes that died, and from the last boot of this one.";
        fenced: Counter, "dispatchd_requests_fenced_total",
            "Requests given up because another node had taken them over.";
    }
}

metrics! {
    /// What the store counts since it was opened. Each is written by one of its threads.
    StoreMetrics {
        commits: Counter, "dispatchd_store_commits_total",
            "Commits of shards taken into the store.";
        commits_repeated: Counter, "dispatchd_store_commits_repeated_total",
            "Commits that the store had already.";
        rows: Counter, "dispatchd_store_records_total",
            "Dispatch records stored.";
        events: Counter, "dispatchd_store_events_total",
            "Events stored.";
        ended: Counter, "dispatchd_store_ended_requests_total",
            "Ended requests stored.";
        batches: Counter, "dispatchd_store_batches_total",
            "Batches made durable, each with one fdatasync.";
        commit_latency: Histogram, "dispatchd_store_commit_latency_seconds",
            "From the start of a batch to its durability.";
        failures: Counter, "dispatchd_store_failures_total",
            "Times that the store could not write: the disk is full and asked again, or it failed for good.";
        queue: Gauge, "dispatchd_store_queue_commits",
            "Commits that the store has taken and not stored.";
        write_buffers_bytes: Gauge, "dispatchd_store_write_buffers_bytes",
            "What the store's write buffers hold, as the engine counts it: grows until a buffer is full and written to a table.";
        cache_bytes: Gauge, "dispatchd_store_cache_bytes",
            "What the store's block cache holds.";
        index_bytes: Gauge, "dispatchd_store_index_bytes",
            "Memory of the indexes and filters that find what the store keeps, beyond those in its block cache.";
        lookups: Counter, "dispatchd_store_lookups_total",
            "Lookups of requests, trips and drivers answered.";
        pages: Counter, "dispatchd_store_pages_total",
            "Pages of records and events answered.";
        polls_parked: Gauge, "dispatchd_store_polls_parked",
            "Readers of events that wait for the next one.";
        events_kept: Gauge, "dispatchd_store_events_kept",
            "Events kept for consumers.";
        events_kept_bytes: Gauge, "dispatchd_store_events_kept_bytes",
            "Size of the events kept for consumers.";
        events_newest: Gauge, "dispatchd_store_events_newest_cursor",
            "Cursor of the newest event.";
        events_dropped: Counter, "dispatchd_store_events_dropped_total",
            "Events that left by age or size before every consumer had acknowledged them.";
        partitions_dropped: Counter, "dispatchd_store_partitions_dropped_total",
            "Partitions that fell out of retention and were dropped whole.";
        disk_bytes: Gauge, "dispatchd_store_disk_bytes",
            "Disk space of the store, looked at once a minute.";
    }
}

metrics! {
    /// What the thread of the fleet's registry counts; nothing without a fleet.
    RegistryMetrics {
        connected: Gauge, "dispatchd_registry_connected",
            "1 while the fleet's registry in Redis takes what this node writes, and this node holds its lease.";
        nodes: Gauge, "dispatchd_registry_nodes",
            "Nodes whose leases stand, as this node last saw them.";
        refreshes: Counter, "dispatchd_registry_refreshes_total",
            "Entries of drivers written.";
        batches: Counter, "dispatchd_registry_batches_total",
            "Batches in which they were written.";
        claims: Counter, "dispatchd_registry_claims_total",
            "Connects that got their session from the registry.";
        claims_unanswered: Counter, "dispatchd_registry_claims_unanswered_total",
            "Connects that were served without an answer of the registry that they had asked.";
        lookups: Counter, "dispatchd_registry_lookups_total",
            "Questions where a driver is that the registry answered.";
        lookups_unanswered: Counter, "dispatchd_registry_lookups_unanswered_total",
            "Questions where a driver is that the registry did not answer.";
        taken: Counter, "dispatchd_registry_taken_total",
            "Drivers taken from other nodes by a connect to this one.";
        refused: Counter, "dispatchd_registry_refused_total",
            "Entries not written, as another node has taken the driver.";
        unusable: Counter, "dispatchd_registry_unusable_total",
            "Calls that Redis refused, as something that no node writes stands under their key; the driver is served without an entry.";
        errors: Counter, "dispatchd_registry_errors_total",
            "Connections to Redis lost or not made, and calls to a cluster that failed.";
        lag: Histogram, "dispatchd_registry_lag_seconds",
            "From the change of a driver to its entry written, of the oldest in each batch.";
    }
}

metrics! {
    /// What the thread of the links between nodes counts; nothing without links.
    LinksMetrics {
        up: Gauge, "dispatchd_links_up",
            "Nodes to which this node's letters go out now.";
        connects: Counter, "dispatchd_links_connects_total",
            "Connections made to other nodes, the first to each among them.";
        frames_sent: Counter, "dispatchd_links_letters_sent_total",
            "Letters written to other nodes, those written again among them.";
        frames_received: Counter, "dispatchd_links_letters_received_total",
            "Letters taken from other nodes, each once.";
        bytes_sent: Counter, "dispatchd_links_sent_bytes_total",
            "Bytes written to other nodes.";
        bytes_received: Counter, "dispatchd_links_received_bytes_total",
            "Bytes read from other nodes.";
        queue: Gauge, "dispatchd_links_queue_letters",
            "Letters that wait for other nodes, counted once a second.";
        lost: Counter, "dispatchd_links_lost_total",
            "Letters given up, as a node was away for long.";
        bad_frames: Counter, "dispatchd_links_bad_frames_total",
            "Frames from other nodes that were none: damage, another version, or what no node sends.";
        bad_connections: Counter, "dispatchd_links_broken_total",
            "Connections from other nodes that were refused or ended other than by their end.";
    }
}

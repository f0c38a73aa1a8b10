//! A shard: one pinned thread that owns drivers, requests, sockets and a journal.

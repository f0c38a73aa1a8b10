//! The net ring: sockets, timeouts of sleep, wake-ups and the journal's writes on one io_uring per shard.

//! Everything that blocks, on threads of its own behind bounded queues.
#![forbid(unsafe_code)]

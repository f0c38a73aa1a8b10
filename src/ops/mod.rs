//! What operators see: metrics, health, logging, drain.
#![forbid(unsafe_code)]

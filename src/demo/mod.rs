//! `dispatchd demo`: real trips, live drivers, a crash in the middle, an audited end.
#![forbid(unsafe_code)]

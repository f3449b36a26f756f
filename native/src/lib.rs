//! The hot path of ammeter: decoding, identity, windows, counters.
//!
//! Pure: no disk, no socket, no clock. Only the `python` module knows Python.

pub mod error;
pub mod meter;

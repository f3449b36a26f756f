//! The hot path of ammeter: decoding, identity, windows, counters.
//!
//! Pure: no socket, no clock; no disk but for the runs of `identity`, which are
//! a cache. Only the `python` module knows Python.
//! The way of an event: `judge` reads a request (`wire`, `event`) and looks
//! at each event with the tenant's meters (`observe`); `admit` keeps those whose
//! `identity` is new in the open `group`; `commit` seals groups into segments
//! and, when they are durable, folds them into `windows`.

mod admit;
pub mod builder;
pub mod checks;
mod commit;
mod counters;
pub mod decimal;
pub mod engine;
pub mod error;
pub mod event;
mod find;
pub mod freeze;
mod group;
pub mod hash;
pub mod identity;
mod judge;
pub mod meter;
pub mod observe;
pub mod pack;
#[cfg(feature = "python")]
mod python;
pub mod replay;
pub mod response;
pub mod scan;
pub mod segment;
pub mod windows;
pub mod wire;

pub use admit::MAX_EVENTS;
pub use group::SealedGroup;

//! The engine from outside: requests in, receipts, segments and answers out.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps nothing fails, as it should"
)]

mod admission;
mod commits;
mod hostile;
mod packs;
mod recovery;
mod runs;
mod sample;

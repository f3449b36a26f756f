//! The identities of one tenant that count once.
//!
//! Those of the last days are in a `table` in memory; older ones are in sorted
//! `run`s on disk behind a `filter`. `store` says which files belong together,
//! `tidy` what an engine does with them. Files are a cache: each holds only
//! what is durable in segments, and whatever is missing is read from those.

mod filter;
mod load;
mod run;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod tidy;
mod write;

pub use store::{Cold, RunTag};
pub use table::IdentityTable;
pub use tidy::{DraftRun, RunFiles};

use crate::hash::{Content, Identity};

pub(crate) use tidy::History;

const DAY_US: i64 = 86_400_000_000;
const DAY_BITS: u32 = 16;
/// Of the tag: a run on disk has it.
const SAVED: u64 = 1 << 15;
const LAST_DAY: u16 = 0x7fff;

/// Day until which an identity counts as seen, from the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u16);

impl Day {
    /// The day of an instant. Never 0, which marks an empty slot.
    #[must_use]
    pub fn of(time_us: i64) -> Self {
        let day = time_us.div_euclid(DAY_US).clamp(1, LAST_DAY.into());
        Self(u16::try_from(day).unwrap_or(LAST_DAY))
    }

    fn before(self, days: u16) -> Self {
        Self(self.0.saturating_sub(days).max(1))
    }
}

/// What was known of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing; now it is.
    New,
    /// The content first seen.
    Before(Content),
}

/// An identity and what is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    identity: Identity,
    /// Content (48 bits), saved (1 bit), day (15 bits); 0 when empty.
    tag: u64,
}

impl Slot {
    pub(crate) fn new(identity: Identity, content: Content, day: Day) -> Self {
        Self {
            identity,
            tag: content.bits() << DAY_BITS | u64::from(day.0),
        }
    }

    fn is_empty(self) -> bool {
        self.tag == 0
    }

    fn content(self) -> Content {
        Content::new(self.tag >> DAY_BITS)
    }

    fn day(self) -> Day {
        // Fifteen bits.
        Day(u16::try_from(self.tag & u64::from(LAST_DAY)).unwrap_or(LAST_DAY))
    }

    fn is_saved(self) -> bool {
        self.tag & SAVED != 0
    }

    fn saved(self) -> Self {
        Self {
            tag: self.tag | SAVED,
            ..self
        }
    }

    fn unsaved(self) -> Self {
        Self {
            tag: self.tag & !SAVED,
            ..self
        }
    }
}

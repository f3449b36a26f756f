//! Which customer owns a subject, and when.

use ahash::RandomState;
use hashbrown::HashMap;

/// A customer owns a subject in minutes [from, to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First minute.
    pub from_minute: i32,
    /// First minute after.
    pub to_minute: i32,
    /// The owner.
    pub customer: u64,
}

/// The spans of all subjects that have any, sorted by time.
#[derive(Debug, Default)]
pub struct Owners(HashMap<Box<[u8]>, Box<[Span]>, RandomState>);

impl Owners {
    /// Replaces a subject's spans; none forgets it.
    pub fn set(&mut self, subject: &str, mut spans: Vec<Span>) {
        spans.retain(|span| span.from_minute < span.to_minute);
        spans.sort_unstable_by_key(|span| span.from_minute);
        if spans.is_empty() {
            self.0.remove(subject.as_bytes());
        } else {
            self.0.insert(subject.as_bytes().into(), spans.into());
        }
    }

    /// A subject's spans.
    pub fn spans(&self, subject: &[u8]) -> &[Span] {
        self.0.get(subject).map_or(&[], |spans| spans)
    }

    /// Number of subjects.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

//! Which customer owns a subject, and when.

use std::sync::Arc;

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
#[derive(Clone, Debug, Default)]
pub struct Owners {
    spans: HashMap<Arc<[u8]>, Box<[Span]>, RandomState>,
    /// By customer, sorted; mostly one.
    subjects: HashMap<u64, Vec<Arc<[u8]>>, RandomState>,
}

impl Owners {
    /// Replaces a subject's spans; none forgets it.
    pub fn set(&mut self, subject: &str, mut spans: Vec<Span>) {
        let subject = subject.as_bytes();
        if let Some(old) = self.spans.remove(subject) {
            for span in old {
                self.disown(span.customer, subject);
            }
        }
        spans.retain(|span| span.from_minute < span.to_minute);
        spans.sort_unstable_by_key(|span| span.from_minute);
        if spans.is_empty() {
            return;
        }
        let subject: Arc<[u8]> = subject.into();
        for span in &spans {
            let owned = self.subjects.entry(span.customer);
            let owned = owned.or_insert_with(|| Vec::with_capacity(1));
            if let Err(at) = owned.binary_search(&subject) {
                owned.insert(at, Arc::clone(&subject));
            }
        }
        self.spans.insert(subject, spans.into());
    }

    /// A subject's spans.
    pub fn spans(&self, subject: &[u8]) -> &[Span] {
        self.spans.get(subject).map_or(&[], |spans| spans)
    }

    /// The subjects that a customer owns at any time.
    pub fn subjects(&self, customer: u64) -> impl Iterator<Item = &[u8]> {
        self.subjects
            .get(&customer)
            .into_iter()
            .flatten()
            .map(|subject| &**subject)
    }

    /// Number of subjects.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    fn disown(&mut self, customer: u64, subject: &[u8]) {
        if let Some(owned) = self.subjects.get_mut(&customer) {
            owned.retain(|one| **one != *subject);
            if owned.is_empty() {
                self.subjects.remove(&customer);
            }
        }
    }
}

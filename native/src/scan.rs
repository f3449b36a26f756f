//! Reading stored events back.

use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::Event;
use crate::observe::Observation;
use crate::segment::{decompress, event_slices, read_stored};

/// What to look for; an empty text matches all.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Least time, inclusive.
    pub from_us: i64,
    /// Greatest time, exclusive.
    pub to_us: i64,
    /// Type.
    pub event_type: &'a str,
    /// Subject.
    pub subject: &'a str,
    /// Id.
    pub event_id: &'a str,
    /// Source.
    pub source: &'a str,
    /// Only events before this one.
    pub below_index: usize,
    /// At most so many.
    pub limit: usize,
}

impl Search<'_> {
    fn matches(&self, event: &Event<'_>, time_us: i64) -> bool {
        let same = |wanted: &str, found: &[u8]| wanted.is_empty() || wanted.as_bytes() == found;
        (self.from_us..self.to_us).contains(&time_us)
            && same(self.event_type, event.kind)
            && same(self.subject, event.subject)
            && same(self.event_id, event.id)
            && same(self.source, event.source)
    }
}

/// Columns, newest event first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredEvents {
    /// Place in the segment.
    pub indexes: Vec<u32>,
    /// Serialized `UsageEvent`s.
    pub events: Vec<Vec<u8>>,
    /// Event times, or received times.
    pub times_us: Vec<i64>,
    /// Content digests, hex.
    pub digests: Vec<String>,
    /// Current meters that count the event.
    pub meters: Vec<Vec<u32>>,
}

impl Engine {
    /// Finds events of one segment, newest first.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`, `CORRUPT`.
    pub fn scan(
        &self,
        tenant: u32,
        codec: u8,
        payload: &[u8],
        raw_bytes: usize,
        search: &Search<'_>,
    ) -> Result<StoredEvents, EngineError> {
        let meters = self.view(tenant)?.meters;
        let hasher = self.hasher.clone();
        let raw = decompress(codec, payload, raw_bytes)?;
        let slices = event_slices(&raw)?;
        let mut found = StoredEvents::default();
        let mut event = Event::default();
        for (index, bytes) in (0_u32..)
            .zip(slices)
            .take(search.below_index)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            if found.indexes.len() == search.limit {
                break;
            }
            let time_us = read_stored(&mut event, bytes, index)?;
            if !search.matches(&event, time_us) {
                continue;
            }
            let members = meters.of_type(event.kind).iter();
            let counting =
                members.filter(|member| matches!(member.observe(&event, &hasher), Observation::Value(_)));
            let mut counting: Vec<u32> = counting.map(|member| member.spec.id).collect();
            counting.sort_unstable();
            found.meters.push(counting);
            found.indexes.push(index);
            found.events.push(bytes.to_vec());
            found.times_us.push(time_us);
            found.digests.push(hasher.content(&event).hex());
        }
        Ok(found)
    }
}

//! Reading stored events back.

use std::cmp::Ordering;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::Event;
use crate::observe::{MeterSet, Observation};
use crate::pack::Stored;
use crate::segment::{event_slices, read_stored};

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
    /// Only events before this position and place in its segment.
    pub before: (u64, usize),
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
    /// Of their segments.
    pub positions: Vec<u64>,
    /// When those were recorded; 0 if the row, which is no pack, tells.
    pub recorded_us: Vec<i64>,
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
    /// Finds events of one row, newest first.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`, `CORRUPT`.
    pub fn scan(
        &self,
        tenant: u32,
        row: &Stored<'_>,
        search: &Search<'_>,
    ) -> Result<StoredEvents, EngineError> {
        let meters = self.view(tenant)?.meters;
        let (raw, pieces) = row.open()?;
        let mut found = StoredEvents::default();
        for piece in pieces.iter().rev() {
            let position = piece.header.position;
            let below = match position.cmp(&search.before.0) {
                Ordering::Less => usize::MAX,
                Ordering::Equal => search.before.1,
                Ordering::Greater => continue,
            };
            if found.indexes.len() == search.limit {
                break;
            }
            let slices = event_slices(&raw[piece.bytes.clone()])?;
            self.scan_segment(&slices[..below.min(slices.len())], &meters, search, &mut found)?;
            found.positions.resize(found.indexes.len(), position);
            found
                .recorded_us
                .resize(found.indexes.len(), piece.header.recorded_us);
        }
        Ok(found)
    }

    fn scan_segment(
        &self,
        slices: &[&[u8]],
        meters: &MeterSet,
        search: &Search<'_>,
        found: &mut StoredEvents,
    ) -> Result<(), EngineError> {
        let mut event = Event::default();
        for (index, bytes) in (0_u32..).zip(slices).collect::<Vec<_>>().into_iter().rev() {
            if found.indexes.len() == search.limit {
                break;
            }
            let time_us = read_stored(&mut event, bytes, index)?;
            if !search.matches(&event, time_us) {
                continue;
            }
            let members = meters.of_type(event.kind).iter();
            let counting = members
                .filter(|member| matches!(member.observe(&event, &self.hasher), Observation::Value(_)));
            let mut counting: Vec<u32> = counting.map(|member| member.spec.id).collect();
            counting.sort_unstable();
            found.meters.push(counting);
            found.indexes.push(index);
            found.events.push(bytes.to_vec());
            found.times_us.push(time_us);
            found.digests.push(self.hasher.content(&event).hex());
        }
        Ok(())
    }
}

//! One meter's blocks, built from history.

use std::sync::Arc;

use crate::error::EngineError;
use crate::event::Event;
use crate::hash::Hasher;
use crate::meter::{MeterSpec, Point};
use crate::observe::{Observation, observe, push_key};
use crate::pack::Stored;
use crate::segment::{event_slices, read_stored};
use crate::windows::{Block, Windows};

/// How many skipped events are named.
const NAMED: usize = 10;

/// Folds stored segments for one meter alone.
pub struct MeterBuilder {
    spec: Arc<MeterSpec>,
    hasher: Hasher,
    windows: Windows,
    skipped_count: u64,
    skipped_events: Vec<String>,
}

impl MeterBuilder {
    /// A builder that has seen nothing.
    #[must_use]
    pub fn new(hash_key: &[u8; 16], tenant: u32, spec: Arc<MeterSpec>) -> Self {
        let mut windows = Windows::new(tenant);
        windows.put_meter(Arc::clone(&spec));
        Self {
            spec,
            hasher: Hasher::new(hash_key),
            windows,
            skipped_count: 0,
            skipped_events: Vec::new(),
        }
    }

    /// Adds the segments of a row that are not after `upto`; in order of
    /// position.
    ///
    /// # Errors
    /// `CORRUPT`; then nothing of the segment named was added.
    pub fn add(&mut self, row: &Stored<'_>, upto: u64) -> Result<(), EngineError> {
        let (raw, pieces) = row.open().map_err(|error| at(row.position, &error))?;
        for piece in pieces {
            let position = piece.header.position;
            if position <= upto {
                self.add_segment(position, &raw[piece.bytes])
                    .map_err(|error| at(position, &error))?;
            }
        }
        Ok(())
    }

    fn add_segment(&mut self, position: u64, raw: &[u8]) -> Result<(), EngineError> {
        let mut event = Event::default();
        let mut key = Vec::new();
        let mut points = Vec::new();
        let mut skipped = Vec::new();
        for (index, bytes) in (0_u32..).zip(event_slices(raw)?) {
            let time_us = read_stored(&mut event, bytes, index)?;
            match observe(&self.spec, &event, &self.hasher) {
                Observation::None => {}
                Observation::Invalid => skipped.push((event.source, event.id)),
                Observation::Value(value) => {
                    key.clear();
                    push_key(&mut key, &self.spec, &event);
                    let group = self.windows.group(self.spec.id, &key);
                    points.push(Point {
                        value,
                        time_us,
                        group,
                        index,
                    });
                }
            }
        }
        self.windows.fold(&points, position);
        self.skipped_count += skipped.len() as u64;
        let free = NAMED - self.skipped_events.len();
        self.skipped_events
            .extend(skipped.into_iter().take(free).map(name));
        Ok(())
    }

    /// Events skipped because their value is not a number.
    #[must_use]
    pub fn skipped_count(&self) -> u64 {
        self.skipped_count
    }

    /// The first of them, as `source/id`.
    #[must_use]
    pub fn skipped_events(&self) -> &[String] {
        &self.skipped_events
    }

    /// Partials held.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.windows.open_rows()
    }

    /// What was built since the last call.
    pub fn take_blocks(&mut self) -> Vec<Block> {
        let part = self.windows.freeze();
        self.windows.discard(part.number);
        self.windows.compact_groups(&mut []);
        part.blocks
    }
}

fn at(position: u64, error: &EngineError) -> EngineError {
    EngineError::new(error.reason, format!("position {position}: {}", error.message))
}

fn name((source, id): (&[u8], &[u8])) -> String {
    format!(
        "{}/{}",
        String::from_utf8_lossy(source),
        String::from_utf8_lossy(id)
    )
}

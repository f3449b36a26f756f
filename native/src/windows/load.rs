//! Many counters at once: one pass over the usage for all of them, not one for each.

use ahash::RandomState;
use hashbrown::HashMap;

use super::Windows;
use super::block::{Header, OpenBlock, day_of};
use super::codec::corrupt;
use super::counter::{Counter, CounterRequest, Counters, Route};
use super::partial::Partial;
use super::shape::Place;
use super::table::Table;
use crate::error::EngineError;

impl Windows {
    /// As `put_counter` for each of the requests, which are all of one meter.
    ///
    /// # Errors
    /// As `put_counter`, and `INVALID_DEFINITION` for a second meter; then nothing has changed.
    pub fn put_counters(
        &mut self,
        requests: &[CounterRequest],
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<(), EngineError> {
        let Some(meter) = requests.first().map(|request| request.meter) else {
            return Ok(());
        };
        if requests.iter().any(|request| request.meter != meter) {
            return Err(EngineError::invalid_definition(
                "counters put together are of one meter",
            ));
        }
        let fresh = self.load(meter, requests, blocks, checkpoint)?;
        for counter in fresh.into_counters() {
            self.counters.put(counter);
        }
        self.reroute();
        Ok(())
    }

    fn load(
        &self,
        meter: u32,
        requests: &[CounterRequest],
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<Counters, EngineError> {
        self.require_fresh(checkpoint)?;
        let known = self.meter(meter)?;
        let mut fresh = Counters::default();
        for request in requests {
            fresh.put(Counter::new(request, &known.spec)?);
        }
        let days = days_of(requests);
        for payload in blocks {
            let block = OpenBlock::read(payload)?;
            let header = block.header;
            if header != Header::of(self.tenant, &known.spec, header.day) {
                return Err(corrupt(
                    "it is of another tenant or meter, or its meter has changed",
                ));
            }
            if days.is_none_or(|(first, last)| header.day < first || header.day > last) {
                continue;
            }
            for section in block.sections()? {
                let routes = fresh.routes(meter, section.key, &self.owners);
                if !routes.is_empty() {
                    section.rows(&header, |minute, partial| {
                        fresh.merge_routed(&routes, minute, &partial);
                    })?;
                }
            }
        }
        for frozen in self.frozen.iter().filter(|frozen| frozen.position > checkpoint) {
            for table in &frozen.tables {
                if let Some(offset) = table.column(meter) {
                    let shape = table.shape;
                    self.load_rows(&mut fresh, meter, Place { shape, offset }, &table.rows);
                }
            }
        }
        let open = self.shapes.table(known.place.shape);
        self.load_rows(&mut fresh, meter, known.place, open);
        Ok(fresh)
    }

    /// Merges rows in memory into the counters that they belong to.
    fn load_rows(&self, fresh: &mut Counters, meter: u32, place: Place, table: &Table) {
        let mut met: HashMap<u32, Box<[Route]>, RandomState> = HashMap::default();
        for (first, minute, row) in table.rows() {
            let partial = table.cell(row, place.offset);
            if partial.count() > 0 {
                let key = self.groups.key(place.group(first));
                let routes = met
                    .entry(first)
                    .or_insert_with(|| fresh.routes(meter, key, &self.owners));
                fresh.merge_routed(routes, minute, partial);
            }
        }
    }
}

/// The first and the last day that any of the counters reaches into.
fn days_of(requests: &[CounterRequest]) -> Option<(i32, i32)> {
    let first = requests
        .iter()
        .filter_map(|request| request.boundaries.first())
        .min()?;
    let last = requests
        .iter()
        .filter_map(|request| request.boundaries.last())
        .max()?;
    Some((day_of(*first), day_of(*last)))
}

impl Counters {
    /// Merges a minute's usage into the counters that its routes lead to.
    fn merge_routed(&mut self, routes: &[Route], minute: i32, partial: &Partial) {
        for route in routes {
            if (route.from_minute..route.to_minute).contains(&minute) {
                if let Some(counter) = self.get_mut(route.target) {
                    counter.merge_at(minute, partial);
                }
            }
        }
    }
}

//! Many counters at once: one pass over the usage for all of them, not one for each.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;

use super::Windows;
use super::block::{Header, OpenBlock, day_of};
use super::codec::corrupt;
use super::counter::{Counter, Counters, Route};
use super::filter::{Filters, check_boundaries};
use super::partial::Partial;
use super::shape::Place;
use super::table::Table;
use crate::error::EngineError;
use crate::meter::MeterSpec;

/// Many counters of one meter, as columns of equal length; what several of them share is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterColumns {
    /// The meter.
    pub meter: u32,
    /// Their numbers.
    pub counters: Vec<u64>,
    /// Whose usage.
    pub customers: Vec<u64>,
    /// Of each, which of `filters` holds.
    pub filter_of: Vec<u32>,
    /// Of each, which of `boundaries` it counts between.
    pub course_of: Vec<u32>,
    /// As those of a `CounterRequest`.
    pub filters: Vec<Vec<(String, Vec<String>)>>,
    /// As those of a `CounterRequest`.
    pub boundaries: Vec<Vec<i32>>,
}

impl Windows {
    /// As `put_counter` for each of many.
    ///
    /// # Errors
    /// As `put_counter`, and `INVALID_DEFINITION` for columns that do not fit together; then
    /// nothing has changed.
    pub fn put_counters(
        &mut self,
        columns: &CounterColumns,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<(), EngineError> {
        if columns.counters.is_empty() {
            return Ok(());
        }
        let fresh = self.load(columns, blocks, checkpoint)?;
        self.counters.reserve(fresh.len());
        for counter in fresh.into_counters() {
            self.counters.put(counter);
        }
        self.reroute();
        Ok(())
    }

    fn load(
        &self,
        columns: &CounterColumns,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<Counters, EngineError> {
        self.require_fresh(checkpoint)?;
        let meter = columns.meter;
        let known = self.meter(meter)?;
        let mut fresh = columns.empty_counters(&known.spec)?;
        let days = columns.days();
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

impl CounterColumns {
    /// The counters, before anything is counted.
    fn empty_counters(&self, spec: &MeterSpec) -> Result<Counters, EngineError> {
        let compile = |one: &Vec<_>| Filters::compile(spec, one).map(Arc::new);
        let filters = self.filters.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        for boundaries in &self.boundaries {
            check_boundaries(boundaries)?;
        }
        let courses: Vec<Arc<[i32]>> = self.boundaries.iter().map(|one| one.as_slice().into()).collect();
        let length = self.counters.len();
        if [self.customers.len(), self.filter_of.len(), self.course_of.len()] != [length; 3] {
            return Err(EngineError::invalid_definition("the columns differ in length"));
        }
        let mut fresh = Counters::default();
        fresh.reserve(length);
        let whose = self.counters.iter().zip(&self.customers);
        let shared = self.filter_of.iter().zip(&self.course_of);
        for ((counter, customer), (filter, course)) in whose.zip(shared) {
            let filters = filters.get(*filter as usize).map(Arc::clone);
            let (Some(filters), Some(course)) = (filters, courses.get(*course as usize).map(Arc::clone))
            else {
                return Err(EngineError::invalid_definition(
                    "a counter names what is not there",
                ));
            };
            fresh.put(Counter::sharing((*counter, *customer), spec, filters, course));
        }
        Ok(fresh)
    }

    /// The first and the last day that any of the counters reaches into.
    fn days(&self) -> Option<(i32, i32)> {
        let first = self.boundaries.iter().filter_map(|course| course.first()).min()?;
        let last = self.boundaries.iter().filter_map(|course| course.last()).max()?;
        Some((day_of(*first), day_of(*last)))
    }
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

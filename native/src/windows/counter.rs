//! Counters: a customer's filtered usage of a meter, kept current by every fold.

use ahash::RandomState;
use hashbrown::HashMap;

use super::filter::{Filters, check_boundaries, window_of};
use super::group::subject;
use super::owner::Owners;
use super::partial::Partial;
use crate::error::{EngineError, Reason};
use crate::meter::{Aggregation, MeterSpec, Point, Quantity};

/// What `Windows::put_counter` is asked to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRequest {
    /// Its number; replaces a counter of the same.
    pub counter: u64,
    /// The meter.
    pub meter: u32,
    /// Whose usage.
    pub customer: u64,
    /// (dimension, allowed values); all must hold.
    pub filters: Vec<(String, Vec<String>)>,
    /// Increasing minutes; span i is [boundary i, boundary i + 1).
    pub boundaries: Vec<i32>,
}

/// Minutes [from, to) of a group's points go to a target: a counter's slot or a query's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// First minute.
    pub from_minute: i32,
    /// First minute after.
    pub to_minute: i32,
    /// Where to.
    pub target: u32,
}

/// One counter. There can be a million: slices without spare room, partials of 40 bytes.
#[derive(Debug)]
pub struct Counter {
    id: u64,
    customer: u64,
    meter: u32,
    aggregation: Aggregation,
    filters: Filters,
    boundaries: Box<[i32]>,
    partials: Box<[Partial]>,
}

impl Counter {
    /// A counter that has counted nothing.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for boundaries that do not increase and filters that are none.
    pub fn new(request: &CounterRequest, spec: &MeterSpec) -> Result<Self, EngineError> {
        check_boundaries(&request.boundaries)?;
        let spans = request.boundaries.len().saturating_sub(1);
        Ok(Self {
            id: request.counter,
            customer: request.customer,
            meter: request.meter,
            aggregation: spec.aggregation,
            filters: Filters::compile(spec, &request.filters)?,
            boundaries: request.boundaries.clone().into(),
            partials: vec![Partial::empty(spec.aggregation); spans].into(),
        })
    }

    /// Merges into a span.
    pub fn merge(&mut self, span: usize, partial: &Partial) {
        if let Some(own) = self.partials.get_mut(span) {
            own.merge(partial);
        }
    }

    /// Adds points of one minute.
    pub fn add(&mut self, minute: i32, points: &[Point], position: u64) {
        if let Some(span) = window_of(&self.boundaries, minute) {
            for point in points {
                self.partials[span].add(point, position);
            }
        }
    }

    fn usage(&self, minute: i32) -> Result<(Quantity, i32, i32), EngineError> {
        let span = window_of(&self.boundaries, minute).ok_or_else(|| {
            let message = format!(
                "no span of counter {} covers minute {minute}: put it anew",
                self.id
            );
            EngineError::new(Reason::OutOfRange, message)
        })?;
        let quantity = self.partials[span].read(self.aggregation)?;
        Ok((quantity, self.boundaries[span], self.boundaries[span + 1]))
    }
}

/// All counters of a tenant.
#[derive(Debug, Default)]
pub struct Counters {
    slots: Vec<Option<Counter>>,
    free: Vec<u32>,
    by_id: HashMap<u64, u32, RandomState>,
    by_customer: HashMap<(u32, u64), Vec<u32>, RandomState>,
}

impl Counters {
    /// Number of counters.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Adds a counter, or replaces the one of its number.
    pub fn put(&mut self, counter: Counter) {
        self.drop(counter.id);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.by_id.insert(counter.id, slot);
        self.by_customer
            .entry((counter.meter, counter.customer))
            .or_default()
            .push(slot);
        self.slots[slot as usize] = Some(counter);
    }

    /// Removes a counter; true if it was there.
    pub fn drop(&mut self, counter: u64) -> bool {
        let Some(slot) = self.by_id.remove(&counter) else {
            return false;
        };
        self.free.push(slot);
        if let Some(gone) = self.slots[slot as usize].take() {
            let key = (gone.meter, gone.customer);
            if let Some(slots) = self.by_customer.get_mut(&key) {
                slots.retain(|one| *one != slot);
                if slots.is_empty() {
                    self.by_customer.remove(&key);
                }
            }
        }
        true
    }

    /// Removes all counters of a meter.
    pub fn drop_meter(&mut self, meter: u32) {
        let of_meter = self
            .slots
            .iter()
            .flatten()
            .filter(|counter| counter.meter == meter);
        let gone: Vec<u64> = of_meter.map(|counter| counter.id).collect();
        for counter in gone {
            self.drop(counter);
        }
    }

    /// The counter in a slot.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Counter> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Where the points of a group go: its subject's owners' counters whose filters hold.
    pub fn routes(&self, meter: u32, key: &[u8], owners: &Owners) -> Box<[Route]> {
        if self.by_id.is_empty() {
            return Box::default();
        }
        let mut routes = Vec::new();
        for span in owners.spans(subject(key)) {
            for &target in self
                .by_customer
                .get(&(meter, span.customer))
                .into_iter()
                .flatten()
            {
                let Some(counter) = &self.slots[target as usize] else {
                    continue;
                };
                let (Some(first), Some(last)) = (counter.boundaries.first(), counter.boundaries.last())
                else {
                    continue;
                };
                let (from_minute, to_minute) = (span.from_minute.max(*first), span.to_minute.min(*last));
                if from_minute < to_minute && counter.filters.hold(key) {
                    routes.push(Route {
                        from_minute,
                        to_minute,
                        target,
                    });
                }
            }
        }
        routes.into()
    }

    /// Quantity and bounds of the span around a minute.
    ///
    /// # Errors
    /// `UNKNOWN_COUNTER`; `OUT_OF_RANGE` outside the spans or for a sum beyond 26 digits.
    pub fn usage(&self, counter: u64, minute: i32) -> Result<(Quantity, i32, i32), EngineError> {
        let slot = self
            .by_id
            .get(&counter)
            .and_then(|slot| self.slots[*slot as usize].as_ref());
        let unknown = || EngineError::new(Reason::UnknownCounter, format!("no counter {counter}"));
        slot.ok_or_else(unknown)?.usage(minute)
    }
}

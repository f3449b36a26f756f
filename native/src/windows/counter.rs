//! Counters: a customer's filtered usage of a meter, kept current by every fold.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::{HashMap, HashSet};

use super::answer::Since;
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

/// One counter. There can be a million: what others have, too, is shared, and before anything is
/// used there are no partials.
#[derive(Debug)]
pub struct Counter {
    id: u64,
    customer: u64,
    meter: u32,
    aggregation: Aggregation,
    filters: Arc<Filters>,
    boundaries: Arc<[i32]>,
    /// One for each span, or none while all would be empty.
    partials: Box<[Partial]>,
    /// Which `Counters::put` made it: two counters of one number are told apart by it.
    put: u64,
    interest: Interest,
}

/// Whether somebody wants to know when a counter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    None,
    /// It has not changed since it was last told of.
    Waiting,
    /// It is in the list of those to tell of.
    Listed,
}

impl Counter {
    /// A counter that has counted nothing.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for boundaries that do not increase and filters that are none.
    pub fn new(request: &CounterRequest, spec: &MeterSpec) -> Result<Self, EngineError> {
        check_boundaries(&request.boundaries)?;
        let filters = Arc::new(Filters::compile(spec, &request.filters)?);
        let whose = (request.counter, request.customer);
        Ok(Self::sharing(
            whose,
            spec,
            filters,
            request.boundaries.as_slice().into(),
        ))
    }

    /// A counter (its number, its customer) that has counted nothing and shares what it is made of.
    pub fn sharing(
        (id, customer): (u64, u64),
        spec: &MeterSpec,
        filters: Arc<Filters>,
        boundaries: Arc<[i32]>,
    ) -> Self {
        Self {
            id,
            customer,
            meter: spec.id,
            aggregation: spec.aggregation,
            filters,
            boundaries,
            partials: Box::default(),
            put: 0,
            interest: Interest::None,
        }
    }

    /// Merges a minute's usage.
    pub fn merge_at(&mut self, minute: i32, partial: &Partial) {
        if let Some(span) = window_of(&self.boundaries, minute) {
            self.merge(span, partial);
        }
    }

    /// Merges into a span.
    pub fn merge(&mut self, span: usize, partial: &Partial) {
        if let Some(own) = self.partials_mut().get_mut(span) {
            own.merge(partial);
        }
    }

    /// Adds points of one minute.
    pub fn add(&mut self, minute: i32, points: &[Point], position: u64) {
        if let Some(span) = window_of(&self.boundaries, minute) {
            let own = &mut self.partials_mut()[span];
            for point in points {
                own.add(point, position);
            }
        }
    }

    #[inline]
    fn partials_mut(&mut self) -> &mut [Partial] {
        if self.partials.is_empty() {
            let spans = self.boundaries.len().saturating_sub(1);
            self.partials = vec![Partial::empty(self.aggregation); spans].into();
        }
        &mut self.partials
    }

    fn read(&self, span: usize) -> Result<Quantity, EngineError> {
        let partial = self.partials.get(span);
        partial.map_or(Ok(0), |partial| partial.read(self.aggregation))
    }

    fn span(&self, minute: i32) -> Result<usize, EngineError> {
        window_of(&self.boundaries, minute).ok_or_else(|| {
            let message = format!(
                "no span of counter {} covers minute {minute}: put it anew",
                self.id
            );
            EngineError::new(Reason::OutOfRange, message)
        })
    }

    fn usage(&self, minute: i32) -> Result<(Quantity, i32, i32), EngineError> {
        let span = self.span(minute)?;
        let quantity = self.read(span)?;
        Ok((quantity, self.boundaries[span], self.boundaries[span + 1]))
    }

    fn usage_since(&self, since: i32, minute: i32) -> Result<Since, EngineError> {
        let (first, span) = (self.span(since)?, self.span(minute)?);
        let quantity = if first == span {
            self.read(span)?
        } else {
            let mut whole = Partial::empty(self.aggregation);
            let covered = self.partials.get(first..=span).unwrap_or_default();
            for partial in covered {
                whole.merge(partial);
            }
            whole.read(self.aggregation)?
        };
        Ok(Since {
            quantity,
            from_minute: self.boundaries[span],
            to_minute: self.boundaries[span + 1],
            put: self.put,
            events_before: self.partials.iter().take(span).map(Partial::count).sum(),
        })
    }

    fn running(&self, restarts: &[i32]) -> Result<(Vec<i32>, Vec<Quantity>), EngineError> {
        let mut whole = Partial::empty(self.aggregation);
        let spans = self.boundaries.len().saturating_sub(1);
        let mut quantities = Vec::with_capacity(spans);
        for (span, from_minute) in self.boundaries.iter().take(spans).enumerate() {
            if restarts.binary_search(from_minute).is_ok() {
                whole = Partial::empty(self.aggregation);
            }
            if let Some(partial) = self.partials.get(span) {
                whole.merge(partial);
            }
            quantities.push(whole.read(self.aggregation)?);
        }
        Ok((self.boundaries.to_vec(), quantities))
    }
}

/// All counters of a tenant.
#[derive(Debug, Default)]
pub struct Counters {
    slots: Vec<Option<Counter>>,
    free: Vec<u32>,
    by_id: HashMap<u64, u32, RandomState>,
    by_customer: HashMap<(u32, u64), Vec<u32>, RandomState>,
    puts: u64,
    watched: HashSet<u64, RandomState>,
    touched: Vec<u64>,
}

impl Counters {
    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        self.slots.reserve(more);
        self.by_id.reserve(more);
    }

    /// Number of counters.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Adds a counter, or replaces the one of its number.
    pub fn put(&mut self, mut counter: Counter) {
        self.drop(counter.id);
        self.puts += 1;
        counter.put = self.puts;
        counter.interest = Interest::None;
        if self.watched.contains(&counter.id) {
            counter.interest = Interest::Listed;
            self.touched.push(counter.id);
        }
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

    /// All counters, by themselves.
    pub fn into_counters(self) -> impl Iterator<Item = Counter> {
        self.slots.into_iter().flatten()
    }

    /// Adds points of one minute to the counter in a slot.
    #[inline]
    pub fn add(&mut self, slot: u32, minute: i32, points: &[Point], position: u64) {
        let Some(Some(counter)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        counter.add(minute, points, position);
        if counter.interest == Interest::Waiting {
            counter.interest = Interest::Listed;
            self.touched.push(counter.id);
        }
    }

    /// Tells of these counters, or no more, when they change; and once now.
    pub fn watch(&mut self, counters: &[u64], watched: bool) {
        for &id in counters {
            if watched {
                self.watched.insert(id);
            } else {
                self.watched.remove(&id);
            }
            let slot = self.by_id.get(&id).copied();
            let Some(counter) = slot.and_then(|slot| self.slots[slot as usize].as_mut()) else {
                continue;
            };
            if !watched {
                counter.interest = Interest::None;
            } else if counter.interest != Interest::Listed {
                counter.interest = Interest::Listed;
                self.touched.push(id);
            }
        }
    }

    /// Those that were watched and changed since it was asked last.
    pub fn take_touched(&mut self) -> Vec<u64> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|id| self.watched.contains(id));
        touched.sort_unstable();
        touched.dedup();
        for id in &touched {
            let slot = self.by_id.get(id).copied();
            if let Some(counter) = slot.and_then(|slot| self.slots[slot as usize].as_mut()) {
                counter.interest = Interest::Waiting;
            }
        }
        touched
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
        self.get(counter)?.usage(minute)
    }

    /// Quantity of the spans from the one around `since` up to the one around a minute.
    ///
    /// # Errors
    /// As `usage`.
    pub fn usage_since(&self, counter: u64, since: i32, minute: i32) -> Result<Since, EngineError> {
        self.get(counter)?.usage_since(since, minute)
    }

    /// The boundaries, and for each span the quantity from the last restart (sorted minutes) up to its end.
    ///
    /// # Errors
    /// As `usage`.
    pub fn running(&self, counter: u64, restarts: &[i32]) -> Result<(Vec<i32>, Vec<Quantity>), EngineError> {
        self.get(counter)?.running(restarts)
    }

    fn get(&self, counter: u64) -> Result<&Counter, EngineError> {
        let slot = self.by_id.get(&counter);
        let found = slot.and_then(|slot| self.slots[*slot as usize].as_ref());
        found.ok_or_else(|| EngineError::new(Reason::UnknownCounter, format!("no counter {counter}")))
    }
}

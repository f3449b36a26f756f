//! The obvious slow implementation: all events in a list.

use std::collections::{BTreeMap, BTreeSet};

use super::{AGGREGATIONS, ONE};
use crate::meter::{Aggregation, Quantity, minute_of};
use crate::windows::{CounterRequest, QueryRequest, QueryResult, Span};

/// One event as one meter sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub meter: u32,
    pub subject: String,
    pub dimensions: [String; 2],
    pub time_us: i64,
    pub value: i128,
    pub position: u64,
    pub index: u32,
}

#[derive(Default)]
pub struct Model {
    pub seen: Vec<Seen>,
    pub owners: BTreeMap<String, Vec<Span>>,
    /// Each with the events that it counted.
    pub counters: BTreeMap<u64, (CounterRequest, Vec<Seen>)>,
    pub position: u64,
}

impl Seen {
    fn dimension(&self, name: &str) -> &str {
        &self.dimensions[usize::from(name == "region")]
    }

    fn holds(&self, filters: &[(String, Vec<String>)]) -> bool {
        filters
            .iter()
            .all(|(name, values)| values.iter().any(|value| value == self.dimension(name)))
    }
}

fn window(boundaries: &[i32], minute: i32) -> Option<usize> {
    boundaries
        .windows(2)
        .position(|pair| pair[0] <= minute && minute < pair[1])
}

fn read<'a>(aggregation: Aggregation, seen: impl Iterator<Item = &'a Seen>) -> Quantity {
    let mut seen: Vec<&Seen> = seen.collect();
    seen.sort_by_key(|one| (one.time_us, one.position, one.index));
    let values: Vec<i128> = seen.iter().map(|one| one.value).collect();
    let count = i128::try_from(values.len()).unwrap();
    let sum: i128 = values.iter().sum();
    match aggregation {
        Aggregation::Count => count * ONE,
        Aggregation::Sum => sum,
        Aggregation::Min => values.iter().min().copied().unwrap_or(0),
        Aggregation::Max => values.iter().max().copied().unwrap_or(0),
        Aggregation::Avg if count == 0 => 0,
        Aggregation::Avg => sum.signum() * ((2 * sum.abs() + count) / (2 * count)),
        Aggregation::UniqueCount => {
            i128::try_from(values.iter().collect::<BTreeSet<_>>().len()).unwrap() * ONE
        }
        Aggregation::Latest => values.last().copied().unwrap_or(0),
    }
}

impl Model {
    pub fn owner(&self, seen: &Seen) -> Option<u64> {
        let minute = minute_of(seen.time_us);
        let spans = self.owners.get(&seen.subject)?;
        let span = spans
            .iter()
            .find(|span| span.from_minute <= minute && minute < span.to_minute)?;
        Some(span.customer)
    }

    fn counts(&self, request: &CounterRequest, seen: &Seen) -> bool {
        seen.meter == request.meter
            && seen.holds(&request.filters)
            && self.owner(seen) == Some(request.customer)
    }

    pub fn fold(&mut self, seen: Vec<Seen>, position: u64) {
        let mut counters = std::mem::take(&mut self.counters);
        for (request, counted) in counters.values_mut() {
            counted.extend(seen.iter().filter(|seen| self.counts(request, seen)).cloned());
        }
        self.counters = counters;
        self.seen.extend(seen);
        self.position = position;
    }

    pub fn put_counter(&mut self, request: CounterRequest) {
        let counted = self
            .seen
            .iter()
            .filter(|seen| self.counts(&request, seen))
            .cloned()
            .collect();
        self.counters.insert(request.counter, (request, counted));
    }

    /// None outside all spans.
    pub fn usage(&self, counter: u64, minute: i32) -> Option<(Quantity, i32, i32)> {
        let (request, events) = &self.counters[&counter];
        let span = window(&request.boundaries, minute)?;
        let (from, to) = (request.boundaries[span], request.boundaries[span + 1]);
        let inside = events
            .iter()
            .filter(|seen| (from..to).contains(&minute_of(seen.time_us)));
        Some((read(AGGREGATIONS[request.meter as usize], inside), from, to))
    }

    /// Quantity and number of events over minutes [from, to).
    pub fn between(&self, counter: u64, from: i32, to: i32) -> (Quantity, u64) {
        let (request, events) = &self.counters[&counter];
        let inside = events
            .iter()
            .filter(|seen| (from..to).contains(&minute_of(seen.time_us)));
        let count = u64::try_from(inside.clone().count()).unwrap();
        (read(AGGREGATIONS[request.meter as usize], inside), count)
    }

    pub fn query(&self, request: &QueryRequest) -> QueryResult {
        let mut cells: BTreeMap<(usize, Vec<String>), Vec<&Seen>> = BTreeMap::new();
        for seen in self.seen.iter().filter(|seen| seen.meter == request.meter) {
            let owner = self.owner(seen);
            let subject = request.subjects.is_empty() || request.subjects.contains(&seen.subject);
            let customer = request.customers.is_empty()
                || owner.is_some_and(|customer| request.customers.contains(&customer));
            let window = window(&request.boundaries, minute_of(seen.time_us));
            let (true, Some(window)) = (subject && customer && seen.holds(&request.filters), window) else {
                continue;
            };
            let value = |name: &String| match name.as_str() {
                "subject" => seen.subject.clone(),
                "customer" => owner.map(|customer| customer.to_string()).unwrap_or_default(),
                _ => seen.dimension(name).to_owned(),
            };
            cells
                .entry((window, request.group_by.iter().map(value).collect()))
                .or_default()
                .push(seen);
        }
        let mut result = QueryResult {
            position: self.position,
            ..QueryResult::default()
        };
        result.groups = vec![Vec::new(); request.group_by.len()];
        for ((window, values), seen) in cells {
            result.windows.push(u32::try_from(window).unwrap());
            result.event_counts.push(seen.len() as u64);
            result
                .values
                .push(read(AGGREGATIONS[request.meter as usize], seen.into_iter()));
            result
                .groups
                .iter_mut()
                .zip(values)
                .for_each(|(column, value)| column.push(value));
        }
        result
    }
}

//! Partials: elements of a commutative monoid, one kind per aggregation.

use ahash::RandomState;
use hashbrown::HashSet;

use super::wide::Wide;
use crate::error::EngineError;
use crate::meter::{Aggregation, Point, Quantity};

/// A quantity of 1.
const ONE: Quantity = 1_000_000_000_000;

/// Up to so many hashes are a sorted list.
const SMALL_SET: usize = 32;

/// The aggregate of some events: `merge` is associative and commutative, `empty` its neutral
/// element. `n` is the number of events. SUM and AVG differ in reading only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partial {
    /// COUNT.
    Count {
        /// Events.
        n: u64,
    },
    /// SUM, AVG.
    Sum {
        /// Events.
        n: u64,
        /// Their values' sum.
        sum: Wide,
    },
    /// MIN; the value means nothing while n is 0.
    Min {
        /// Events.
        n: u64,
        /// Least value.
        value: Wide,
    },
    /// MAX; the value means nothing while n is 0.
    Max {
        /// Events.
        n: u64,
        /// Greatest value.
        value: Wide,
    },
    /// LATEST; boxed to keep the other kinds small.
    Latest {
        /// Events.
        n: u64,
        /// The greatest arrival.
        last: Option<Box<Arrival>>,
    },
    /// `UNIQUE_COUNT`.
    Unique {
        /// Events.
        n: u64,
        /// Hashes of the values.
        hashes: Hashes,
    },
}

/// One event's value and when it came, in the order LATEST prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Event time.
    pub time_us: i64,
    /// Segment.
    pub position: u64,
    /// Place in the segment.
    pub index: u32,
    /// The value.
    pub value: Quantity,
}

/// An exact set of 128-bit hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hashes {
    /// Sorted, at most `SMALL_SET`.
    Small(Vec<u128>),
    /// More than that.
    Large(Box<HashSet<u128, RandomState>>),
}

impl Hashes {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::Small(Vec::new())
    }

    /// Number of hashes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Small(list) => list.len(),
            Self::Large(set) => set.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds one.
    pub fn insert(&mut self, hash: u128) {
        match self {
            Self::Large(set) => {
                set.insert(hash);
            }
            Self::Small(list) => {
                let Err(at) = list.binary_search(&hash) else {
                    return;
                };
                list.insert(at, hash);
                if list.len() > SMALL_SET {
                    *self = Self::Large(Box::new(list.drain(..).collect()));
                }
            }
        }
    }

    /// All of them, ascending.
    #[must_use]
    pub fn sorted(&self) -> Vec<u128> {
        match self {
            Self::Small(list) => list.clone(),
            Self::Large(set) => {
                let mut list: Vec<u128> = set.iter().copied().collect();
                list.sort_unstable();
                list
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        match other {
            Self::Small(list) => list.iter().for_each(|hash| self.insert(*hash)),
            Self::Large(set) => {
                let mut merged = set.clone();
                match self {
                    Self::Small(list) => merged.extend(list.drain(..)),
                    Self::Large(own) => {
                        own.extend(set.iter());
                        return;
                    }
                }
                *self = Self::Large(merged);
            }
        }
    }
}

impl Default for Hashes {
    fn default() -> Self {
        Self::new()
    }
}

impl Partial {
    /// The neutral element.
    #[must_use]
    #[inline]
    pub fn empty(aggregation: Aggregation) -> Self {
        let (n, zero) = (0, Wide::default());
        match aggregation {
            Aggregation::Count => Self::Count { n },
            Aggregation::Sum | Aggregation::Avg => Self::Sum { n, sum: zero },
            Aggregation::Min => Self::Min { n, value: zero },
            Aggregation::Max => Self::Max { n, value: zero },
            Aggregation::Latest => Self::Latest { n, last: None },
            Aggregation::UniqueCount => Self::Unique {
                n,
                hashes: Hashes::new(),
            },
        }
    }

    /// Adds one event.
    #[inline]
    pub fn add(&mut self, point: &Point, position: u64) {
        let count = self.count_mut();
        let first = *count == 0;
        *count = count.saturating_add(1);
        match self {
            Self::Count { .. } => {}
            Self::Sum { sum, .. } => *sum = sum.plus(Wide::from(point.value)),
            Self::Min { value, .. } => least(value, Wide::from(point.value), first),
            Self::Max { value, .. } => greatest(value, Wide::from(point.value), first),
            Self::Latest { last, .. } => latest(
                last,
                &Arrival {
                    time_us: point.time_us,
                    position,
                    index: point.index,
                    value: point.value,
                },
            ),
            Self::Unique { hashes, .. } => hashes.insert(u128::from_le_bytes(point.value.to_le_bytes())),
        }
    }

    /// Adds all events of another partial of the same aggregation.
    pub fn merge(&mut self, other: &Self) {
        let more = other.count();
        if more == 0 {
            return;
        }
        let count = self.count_mut();
        let first = *count == 0;
        *count = count.saturating_add(more);
        match (self, other) {
            (Self::Count { .. }, Self::Count { .. }) => {}
            (Self::Sum { sum, .. }, Self::Sum { sum: other, .. }) => *sum = sum.plus(*other),
            (Self::Min { value, .. }, Self::Min { value: other, .. }) => least(value, *other, first),
            (Self::Max { value, .. }, Self::Max { value: other, .. }) => greatest(value, *other, first),
            (Self::Latest { last, .. }, Self::Latest { last: other, .. }) => {
                if let Some(other) = other {
                    latest(last, other);
                }
            }
            (Self::Unique { hashes, .. }, Self::Unique { hashes: other, .. }) => hashes.merge(other),
            // One meter has one aggregation, and decoding a block checks it.
            _ => debug_assert!(false, "partials of two aggregations"),
        }
    }

    /// Number of events.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Count { n }
            | Self::Sum { n, .. }
            | Self::Min { n, .. }
            | Self::Max { n, .. }
            | Self::Latest { n, .. }
            | Self::Unique { n, .. } => *n,
        }
    }

    /// The quantity; 0 when empty.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` for a sum beyond 26 integer digits.
    pub fn read(&self, aggregation: Aggregation) -> Result<Quantity, EngineError> {
        match self {
            Self::Count { n } => Ok(Quantity::from(*n) * ONE),
            Self::Sum { n, sum } if aggregation == Aggregation::Avg => sum.average(*n),
            Self::Sum { sum: value, .. } | Self::Min { value, .. } | Self::Max { value, .. } => {
                value.quantity()
            }
            Self::Latest { last, .. } => Ok(last.as_ref().map_or(0, |last| last.value)),
            Self::Unique { hashes, .. } => Ok(i128::try_from(hashes.len()).unwrap_or(0) * ONE),
        }
    }

    #[inline]
    fn count_mut(&mut self) -> &mut u64 {
        match self {
            Self::Count { n }
            | Self::Sum { n, .. }
            | Self::Min { n, .. }
            | Self::Max { n, .. }
            | Self::Latest { n, .. }
            | Self::Unique { n, .. } => n,
        }
    }
}

#[inline]
fn least(value: &mut Wide, other: Wide, first: bool) {
    if first || other < *value {
        *value = other;
    }
}

#[inline]
fn greatest(value: &mut Wide, other: Wide, first: bool) {
    if first || other > *value {
        *value = other;
    }
}

#[inline]
fn latest(last: &mut Option<Box<Arrival>>, other: &Arrival) {
    match last {
        Some(last) => **last = (**last).max(*other),
        None => *last = Some(Box::new(*other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Aggregation; 7] = [
        Aggregation::Count,
        Aggregation::Sum,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Avg,
        Aggregation::UniqueCount,
        Aggregation::Latest,
    ];

    fn values() -> impl Strategy<Value = Vec<(i128, i64)>> {
        let value = prop_oneof![-3_i128..3, Just(i128::MAX), Just(i128::MIN), any::<i128>()];
        prop::collection::vec((value, 0_i64..4), 0..60)
    }

    fn fold(aggregation: Aggregation, values: &[(i128, i64)], position: u64) -> Partial {
        let mut partial = Partial::empty(aggregation);
        for (index, (value, time_us)) in (0..).zip(values) {
            partial.add(
                &Point {
                    value: *value,
                    time_us: *time_us,
                    group: 0,
                    index,
                },
                position,
            );
        }
        partial
    }

    fn merged(a: &Partial, b: &Partial) -> Partial {
        let mut sum = a.clone();
        sum.merge(b);
        sum
    }

    proptest! {
        #[test]
        fn partials_are_a_commutative_monoid(a in values(), b in values(), c in values()) {
            for aggregation in ALL {
                let empty = Partial::empty(aggregation);
                let a = fold(aggregation, &a, 1);
                let b = fold(aggregation, &b, 2);
                let c = fold(aggregation, &c, 3);
                prop_assert_eq!(merged(&a, &b), merged(&b, &a));
                prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
                prop_assert_eq!(&merged(&a, &empty), &a);
                prop_assert_eq!(&merged(&empty, &a), &a);
            }
        }

        #[test]
        fn adding_one_by_one_is_merging(a in values(), b in values()) {
            for aggregation in ALL {
                let mut both = fold(aggregation, &a, 1);
                let second = fold(aggregation, &b, 2);
                let expected = merged(&both, &second);
                for (index, (value, time_us)) in (0..).zip(&b) {
                    both.add(&Point { value: *value, time_us: *time_us, group: 0, index }, 2);
                }
                prop_assert_eq!(both, expected);
            }
        }
    }

    #[test]
    fn a_partial_is_small() {
        assert!(size_of::<Partial>() <= 40);
    }

    #[test]
    fn ties_of_time_go_to_the_later_arrival() {
        let early = fold(Aggregation::Latest, &[(7, 5), (8, 5)], 1);
        let late = fold(Aggregation::Latest, &[(1, 5), (9, 4)], 2);
        assert_eq!(early.read(Aggregation::Latest), Ok(8));
        assert_eq!(merged(&late, &early).read(Aggregation::Latest), Ok(1));
    }
}

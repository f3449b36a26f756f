//! Rows of partials: open in a hash map, frozen in a sorted list.

use ahash::RandomState;
use hashbrown::HashMap;

use super::group::{Groups, NO_GROUP, parts};
use super::partial::Partial;
use crate::meter::Aggregation;

/// A partial and what it is of.
#[derive(Clone, Debug)]
pub struct Row {
    /// Interned group.
    pub group: u32,
    /// Minute.
    pub minute: i32,
    /// Aggregate of the group in that minute.
    pub partial: Partial,
}

/// The rows of one meter that are still folded into. The key is the group and the minute in one
/// word, which makes an entry 48 bytes.
#[derive(Debug, Default)]
pub struct OpenTable(HashMap<u64, Partial, RandomState>);

/// The rows of one meter, taken out of its open table; sorted by key of the group, then minute.
#[derive(Debug)]
pub struct FrozenTable {
    /// The meter.
    pub meter: u32,
    /// Sorted rows.
    pub rows: Vec<Row>,
}

impl OpenTable {
    /// The partial to fold into.
    #[inline]
    pub fn partial(&mut self, group: u32, minute: i32, aggregation: Aggregation) -> &mut Partial {
        self.0
            .entry(pack(group, minute))
            .or_insert_with(|| Partial::empty(aggregation))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, i32, &Partial)> {
        self.0.iter().map(|(key, partial)| {
            let (group, minute) = unpack(*key);
            (group, minute, partial)
        })
    }

    /// Gives groups their new numbers.
    pub fn renumber(&mut self, numbers: &[u32]) {
        let old = std::mem::take(&mut self.0);
        self.0.reserve(old.len());
        for (key, partial) in old {
            let (group, minute) = unpack(key);
            self.0.insert(pack(numbers[group as usize], minute), partial);
        }
    }

    /// Takes all rows out, sorted. Keeps the room: as many will come again.
    pub fn take_sorted(&mut self, groups: &Groups) -> Vec<Row> {
        let ranks = Ranks::new(self.iter().map(|(group, ..)| group), groups);
        let mut order: Vec<(u64, Row)> = Vec::with_capacity(self.0.len());
        let keep = self.0.len() * 4 > self.0.capacity();
        for (key, partial) in self.0.drain() {
            let (group, minute) = unpack(key);
            order.push((
                ranks.key(group, minute),
                Row {
                    group,
                    minute,
                    partial,
                },
            ));
        }
        if !keep {
            self.0.shrink_to_fit();
        }
        order.sort_unstable_by_key(|(key, _)| *key);
        order.into_iter().map(|(_, row)| row).collect()
    }
}

impl FrozenTable {
    /// Gives groups their new numbers.
    pub fn renumber(&mut self, numbers: &[u32]) {
        for row in &mut self.rows {
            row.group = numbers[row.group as usize];
        }
    }
}

/// The place of each used group in the order of keys.
struct Ranks(Vec<u32>);

impl Ranks {
    fn new(used: impl Iterator<Item = u32>, groups: &Groups) -> Self {
        let mut ranks = vec![NO_GROUP; groups.len()];
        let mut order = Vec::new();
        for id in used {
            if ranks[id as usize] == NO_GROUP {
                ranks[id as usize] = 0;
                order.push(id);
            }
        }
        order.sort_unstable_by(|a, b| parts(groups.key(*a)).cmp(parts(groups.key(*b))));
        for (rank, id) in (0..).zip(order) {
            ranks[id as usize] = rank;
        }
        Self(ranks)
    }

    /// A number that sorts as (key of the group, minute) does.
    fn key(&self, group: u32, minute: i32) -> u64 {
        let minute = u32::from_le_bytes(minute.to_le_bytes()) ^ (1 << 31);
        u64::from(self.0[group as usize]) << 32 | u64::from(minute)
    }
}

#[inline]
fn pack(group: u32, minute: i32) -> u64 {
    u64::from(group) << 32 | u64::from(u32::from_le_bytes(minute.to_le_bytes()))
}

#[allow(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
fn unpack(key: u64) -> (u32, i32) {
    ((key >> 32) as u32, i32::from_le_bytes((key as u32).to_le_bytes()))
}

//! Rows of partials: open in a hash map, frozen in a sorted list.

use std::ops::Range;

use ahash::RandomState;
use hashbrown::HashMap;

use super::group::{Groups, NO_GROUP, parts, subject};
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
pub struct OpenTable {
    rows: HashMap<u64, Partial, RandomState>,
    /// The least and the greatest minute.
    minutes: Option<(i32, i32)>,
}

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
        let (least, greatest) = self.minutes.unwrap_or((minute, minute));
        self.minutes = Some((least.min(minute), greatest.max(minute)));
        self.rows
            .entry(pack(group, minute))
            .or_insert_with(|| Partial::empty(aggregation))
    }

    /// The partial of a group and minute.
    #[inline]
    pub fn get(&self, group: u32, minute: i32) -> Option<&Partial> {
        self.rows.get(&pack(group, minute))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, i32, &Partial)> {
        self.rows.iter().map(|(key, partial)| {
            let (group, minute) = unpack(*key);
            (group, minute, partial)
        })
    }

    /// Rows of these groups, found one by one; None where that means more probes than there are
    /// rows.
    pub fn rows_of(
        &self,
        groups: &[u32],
        minutes: Range<i32>,
    ) -> Option<impl Iterator<Item = (u32, i32, &Partial)>> {
        let (least, greatest) = self.minutes.unwrap_or((0, 0));
        let minutes = least.max(minutes.start)..greatest.saturating_add(1).min(minutes.end);
        let probes = minutes.len().saturating_mul(groups.len());
        let keys = groups
            .iter()
            .flat_map(move |group| minutes.clone().map(move |minute| (*group, minute)));
        let found = keys.filter_map(|(group, minute)| {
            self.rows
                .get(&pack(group, minute))
                .map(|partial| (group, minute, partial))
        });
        (probes <= self.len()).then_some(found)
    }

    /// Gives groups their new numbers.
    pub fn renumber(&mut self, numbers: &[u32]) {
        let old = std::mem::take(&mut self.rows);
        self.rows.reserve(old.len());
        for (key, partial) in old {
            let (group, minute) = unpack(key);
            self.rows.insert(pack(numbers[group as usize], minute), partial);
        }
    }

    /// Takes all rows out, sorted. Keeps the room: as many will come again.
    pub fn take_sorted(&mut self, groups: &Groups) -> Vec<Row> {
        let ranks = Ranks::new(self.iter().map(|(group, ..)| group), groups);
        let mut order: Vec<(u64, Row)> = Vec::with_capacity(self.rows.len());
        let keep = self.rows.len() * 4 > self.rows.capacity();
        for (key, partial) in self.rows.drain() {
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
        self.minutes = None;
        if !keep {
            self.rows.shrink_to_fit();
        }
        order.sort_unstable_by_key(|(key, _)| *key);
        order.into_iter().map(|(_, row)| row).collect()
    }
}

impl FrozenTable {
    /// Rows of a subject.
    pub fn rows_of(&self, name: &[u8], groups: &Groups) -> &[Row] {
        let from = self
            .rows
            .partition_point(|row| subject(groups.key(row.group)) < name);
        let count = self.rows[from..].partition_point(|row| subject(groups.key(row.group)) == name);
        &self.rows[from..from + count]
    }

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

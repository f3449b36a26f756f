//! Rows of partials: for each key and minute that a shape has met, a partial of each of its meters.

use std::ops::Range;

use ahash::RandomState;
use hashbrown::HashMap;

use super::group::NO_GROUP;
use super::partial::Partial;
use crate::meter::Aggregation;

/// The rows of one shape. Its meters count the same events by the same dimensions, so a row that is
/// found for one is found for all, and what they add lies together in memory.
///
/// A key is named by the first of its groups.
#[derive(Clone, Debug)]
pub struct Table {
    /// Numbers of rows; the key and the minute are one word.
    rows: HashMap<u64, u32, RandomState>,
    /// The rows, each with a partial for each column.
    cells: Vec<Partial>,
    /// A row that has counted nothing.
    blank: Vec<Partial>,
    /// Of each column, in how many rows it has counted something.
    filled: Vec<usize>,
    /// The least and the greatest minute.
    minutes: Option<(i32, i32)>,
    /// Another one whenever the rows are taken; never 0.
    version: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            rows: HashMap::default(),
            cells: Vec::new(),
            blank: Vec::new(),
            filled: Vec::new(),
            minutes: None,
            version: 1,
        }
    }
}

impl Table {
    /// Adds a column, in a table without rows; returns its number.
    pub fn add_column(&mut self, aggregation: Aggregation) -> usize {
        debug_assert!(
            self.rows.is_empty(),
            "rows have as many cells as there are columns"
        );
        self.blank.push(Partial::empty(aggregation));
        self.filled.push(0);
        self.blank.len() - 1
    }

    /// A column's meter is gone: what it counted does not count any more.
    pub fn forget_column(&mut self, column: u32) {
        self.filled[column as usize] = 0;
    }

    /// A table with the same columns and no rows.
    pub fn without_rows(&self) -> Self {
        Self {
            blank: self.blank.clone(),
            filled: vec![0; self.filled.len()],
            ..Self::default()
        }
    }

    /// The table's rows. It keeps its columns, and has room: as many rows will come again.
    pub fn take(&mut self) -> Self {
        let mut fresh = self.without_rows();
        fresh.rows.reserve(self.rows.len());
        fresh.cells.reserve(self.cells.len());
        fresh.version = self.version.checked_add(1).unwrap_or(1);
        std::mem::replace(self, fresh)
    }

    /// Rows keep their numbers while this stays the same.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Number of columns.
    #[inline]
    pub fn columns(&self) -> u32 {
        u32::try_from(self.blank.len()).unwrap_or(u32::MAX)
    }

    /// The number of a row, which may be new.
    pub fn row(&mut self, first: u32, minute: i32) -> u32 {
        let (cells, blank) = (&mut self.cells, &self.blank);
        let next = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let (least, greatest) = self.minutes.unwrap_or((minute, minute));
        self.minutes = Some((least.min(minute), greatest.max(minute)));
        *self.rows.entry(pack(first, minute)).or_insert_with(|| {
            cells.extend_from_slice(blank);
            next
        })
    }

    /// The partial to fold into at once, which may have counted nothing yet.
    #[inline]
    pub fn partial(&mut self, row: u32, column: u32) -> &mut Partial {
        let partial = &mut self.cells[row as usize * self.blank.len() + column as usize];
        self.filled[column as usize] += usize::from(partial.count() == 0);
        partial
    }

    /// Reads what `partial` will read, without waiting for anything.
    #[inline]
    pub fn touch(&self, row: u32) -> u64 {
        let cell = self.cells.get(row as usize * self.blank.len());
        cell.map_or(0, Partial::count)
    }

    /// Number of partials that have counted something.
    pub fn len(&self) -> usize {
        self.filled.iter().sum()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of partials of a column.
    pub fn filled(&self, column: u32) -> usize {
        self.filled[column as usize]
    }

    /// All rows, in no order: the key's first group, the minute, the number.
    pub fn rows(&self) -> impl Iterator<Item = (u32, i32, u32)> {
        self.rows.iter().map(|(key, row)| {
            let (first, minute) = unpack(*key);
            (first, minute, *row)
        })
    }

    /// The same, ordered by group and minute.
    pub fn sorted_rows(&self) -> Vec<(u32, i32, u32)> {
        let mut rows: Vec<(u64, u32)> = self.rows.iter().map(|(key, row)| (*key, *row)).collect();
        rows.sort_unstable();
        let unpacked = rows.into_iter().map(|(key, row)| {
            let (first, minute) = unpack(key);
            (first, minute, row)
        });
        unpacked.collect()
    }

    /// What a row says in a column.
    #[inline]
    pub fn cell(&self, row: u32, column: u32) -> &Partial {
        &self.cells[row as usize * self.blank.len() + column as usize]
    }

    /// Rows of these keys, found one by one; None where that means more probes than there are rows.
    pub fn rows_of(
        &self,
        firsts: &[u32],
        minutes: Range<i32>,
    ) -> Option<impl Iterator<Item = (u32, i32, u32)>> {
        let (least, greatest) = self.minutes.unwrap_or((0, 0));
        let minutes = least.max(minutes.start)..greatest.saturating_add(1).min(minutes.end);
        let probes = minutes.len().saturating_mul(firsts.len());
        let keys = firsts
            .iter()
            .flat_map(move |first| minutes.clone().map(move |minute| (*first, minute)));
        let found = keys.filter_map(|(first, minute)| {
            let row = self.rows.get(&pack(first, minute))?;
            Some((first, minute, *row))
        });
        (probes <= self.rows.len()).then_some(found)
    }
}

/// Sorts as (group, minute) does.
#[inline]
fn pack(first: u32, minute: i32) -> u64 {
    debug_assert!(first != NO_GROUP, "no group has rows");
    u64::from(first) << 32 | u64::from(u32::from_le_bytes(minute.to_le_bytes()) ^ SIGN)
}

#[allow(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
fn unpack(key: u64) -> (u32, i32) {
    let minute = (key as u32 ^ SIGN).to_le_bytes();
    ((key >> 32) as u32, i32::from_le_bytes(minute))
}

/// Makes negative minutes sort before the others.
const SIGN: u32 = 1 << 31;

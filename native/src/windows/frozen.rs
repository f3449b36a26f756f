//! Frozen rows: taken out of the open tables, to be written while folding goes on.

use std::sync::Arc;

use super::block::Block;
use super::group::parts;
use super::pack;
use super::table::Table;
use crate::meter::MeterSpec;

/// The rows of one shape, and the meter of each column; None for one that was dropped.
#[derive(Clone, Debug)]
pub struct FrozenTable {
    /// Number of the shape.
    pub shape: u32,
    /// Meters by column.
    pub meters: Vec<Option<Arc<MeterSpec>>>,
    /// The rows. Shared with whoever writes them.
    pub rows: Arc<Table>,
}

/// All rows that were open at one moment.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Grows by one each time.
    pub number: u64,
    /// What was folded by then.
    pub position: u64,
    /// By shape.
    pub tables: Vec<FrozenTable>,
}

/// The open partials at one moment, as blocks to be written.
#[derive(Clone, Debug)]
pub struct FrozenPart {
    /// Whose they are.
    pub tenant: u32,
    /// With these blocks the database is complete up to here.
    pub position: u64,
    /// For `Windows::discard`.
    pub number: u64,
    /// The partials.
    pub blocks: Vec<Block>,
}

impl FrozenTable {
    /// A meter's column.
    pub fn column(&self, meter: u32) -> Option<u32> {
        let is = |spec: &&Option<Arc<MeterSpec>>| spec.as_ref().is_some_and(|spec| spec.id == meter);
        let (column, _) = (0..).zip(&self.meters).find(|(_, spec)| is(spec))?;
        Some(column)
    }

    /// Number of partials.
    pub fn len(&self) -> usize {
        let live = (0..).zip(&self.meters).filter(|(_, spec)| spec.is_some());
        live.map(|(column, _)| self.rows.filled(column)).sum()
    }
}

/// Open partials taken out, which still are to be made blocks of: `encode` needs no lock.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Whose they are.
    pub tenant: u32,
    /// With their blocks the database is complete up to here.
    pub position: u64,
    /// For `Windows::discard`.
    pub number: u64,
    /// The rows.
    pub(super) tables: Vec<FrozenTable>,
}

/// Keys of groups, copied.
#[derive(Debug, Default)]
pub struct Keys {
    arena: Vec<u8>,
    /// (group, end of its key), ascending; a key begins where the one before ends.
    ends: Vec<(u32, usize)>,
}

impl Keys {
    /// Appends the key of a greater group than those before.
    pub fn push(&mut self, group: u32, key: &[u8]) {
        self.arena.extend_from_slice(key);
        self.ends.push((group, self.arena.len()));
    }

    /// The key of a group that was pushed.
    #[must_use]
    pub fn get(&self, group: u32) -> &[u8] {
        match self.ends.binary_search_by_key(&group, |(group, _)| *group) {
            Ok(at) => {
                let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
                &self.arena[start..self.ends[at].1]
            }
            Err(_) => &[],
        }
    }
}

impl Taken {
    /// The groups whose keys `encode` needs, ascending.
    #[must_use]
    pub fn groups(&self) -> Vec<u32> {
        let rows = self.tables.iter().flat_map(|table| table.rows.rows());
        let mut groups: Vec<u32> = rows.map(|(first, ..)| first).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Makes the blocks, ordered by shape, meter and day.
    #[must_use]
    pub fn encode(&self, keys: &Keys) -> Vec<Block> {
        let mut blocks = Vec::new();
        for table in &self.tables {
            let rows = table.rows.sorted_rows();
            let mut groups: Vec<_> = rows
                .chunk_by(|(a, ..), (b, ..)| a == b)
                .map(|rows| (keys.get(rows[0].0), rows))
                .collect();
            groups.sort_unstable_by(|(a, _), (b, _)| parts(a).cmp(parts(b)));
            for (column, spec) in (0..).zip(&table.meters) {
                if let Some(spec) = spec {
                    blocks.extend(pack::encode(self.tenant, spec, &table.rows, column, &groups));
                }
            }
        }
        blocks
    }
}

//! Letting go of groups that nothing needs any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frozen::FrozenTable;
use super::group::NO_GROUP;
use super::partial::Partial;
use super::shape::{Place, Shapes};
use super::table::Table;
use super::{Windows, specs};
use crate::meter::{MeterSpec, Point};

impl Windows {
    /// Forgets the groups that nothing in memory and none of the pending points use, and gives
    /// the others new numbers, in the pending points, too.
    pub fn compact_groups(&mut self, pending: &mut [&mut Vec<Point>]) {
        let used = self.used_groups(pending);
        let old = std::mem::take(&mut self.shapes);
        let numbers = self.renumber_groups(&used);
        for shape in old.iter() {
            let columns = shape.slots.iter().map(|&slot| self.in_slot(slot));
            let columns: Vec<_> = columns.collect();
            for moved in cells(&shape.table, &columns, &numbers) {
                moved.put(self.shapes.table_mut(moved.place.shape));
            }
        }
        let mut frozen = std::mem::take(&mut self.frozen);
        for part in &mut frozen {
            part.tables = self.renumber_frozen(&part.tables, &numbers);
        }
        self.frozen = frozen;
        for point in pending.iter_mut().flat_map(|points| points.iter_mut()) {
            point.group = numbers.get(point.group as usize).copied().unwrap_or(NO_GROUP);
        }
    }

    fn used_groups(&self, pending: &[&mut Vec<Point>]) -> Vec<bool> {
        let mut used = vec![false; self.groups.len()];
        let open = self.shapes.iter().map(|shape| (&shape.table, shape.slots.len()));
        let frozen = self.frozen.iter().flat_map(|part| &part.tables);
        let tables = open.chain(frozen.map(|table| (&*table.rows, table.meters.len())));
        for (table, columns) in tables {
            for (first, ..) in table.rows() {
                used[first as usize..][..columns].fill(true);
            }
        }
        for point in pending.iter().flat_map(|points| points.iter()) {
            if let Some(used) = used.get_mut(point.group as usize) {
                *used = true;
            }
        }
        used
    }

    /// No group keeps its number, so meters put one by one can come into one shape.
    fn renumber_groups(&mut self, used: &[bool]) -> Vec<u32> {
        self.shapes = Shapes::default();
        for (slot, meter) in (0..).zip(&mut self.meters) {
            if let Some(meter) = meter {
                meter.place = self.shapes.join(&meter.spec, slot, |_| false);
            }
        }
        let place = |slot: u32| self.meters[slot as usize].as_ref().map(|meter| meter.place);
        self.groups.compact(used, |slot| {
            place(slot).map(|place| (place, self.shapes.slots(place.shape)))
        })
    }

    fn in_slot(&self, slot: u32) -> Option<Place> {
        let meter = self.meters.get(slot as usize)?.as_ref()?;
        Some(meter.place)
    }

    /// A table's columns may go to several shapes.
    fn renumber_frozen(&self, tables: &[FrozenTable], numbers: &[u32]) -> Vec<FrozenTable> {
        let mut renumbered: BTreeMap<u32, Table> = BTreeMap::new();
        for table in tables {
            let place = |spec: &Arc<MeterSpec>| self.place(spec.id);
            let columns: Vec<_> = table
                .meters
                .iter()
                .map(|spec| spec.as_ref().and_then(place))
                .collect();
            for moved in cells(&table.rows, &columns, numbers) {
                let shape = moved.place.shape;
                let fresh = || self.shapes.table(shape).without_rows();
                moved.put(renumbered.entry(shape).or_insert_with(fresh));
            }
        }
        let frozen = renumbered.into_iter().map(|(shape, rows)| FrozenTable {
            shape,
            meters: specs(&self.meters, self.shapes.slots(shape)),
            rows: Arc::new(rows),
        });
        frozen.collect()
    }
}

/// A partial and where it belongs now.
struct Moved<'a> {
    place: Place,
    first: u32,
    minute: i32,
    partial: &'a Partial,
}

impl Moved<'_> {
    fn put(&self, table: &mut Table) {
        let row = table.row(self.first, self.minute);
        *table.partial(row, self.place.offset) = self.partial.clone();
    }
}

/// The partials of a table whose columns now are in these places.
fn cells<'a>(
    table: &'a Table,
    columns: &'a [Option<Place>],
    numbers: &'a [u32],
) -> impl Iterator<Item = Moved<'a>> {
    table.rows().flat_map(move |(first, minute, row)| {
        (0..).zip(columns).filter_map(move |(column, place)| {
            let place = (*place)?;
            let partial = table.cell(row, column);
            let group = numbers[(first + column) as usize];
            let counts = partial.count() > 0 && group != NO_GROUP;
            counts.then(|| Moved {
                place,
                first: place.first(group),
                minute,
                partial,
            })
        })
    })
}

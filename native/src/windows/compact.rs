//! Letting go of groups that nothing needs any more.

use super::Windows;
use super::group::NO_GROUP;
use super::shape::Shapes;
use crate::meter::Point;

impl Windows {
    /// Forgets the groups that nothing in memory and none of the pending points use, and gives
    /// the others new numbers, in the pending points, too.
    pub fn compact_groups(&mut self, pending: &mut [&mut Vec<Point>]) {
        let mut used = vec![false; self.groups.len()];
        let open = self
            .meters
            .iter()
            .flatten()
            .flat_map(|meter| meter.open.iter().map(|(group, ..)| group));
        let frozen = self
            .frozen
            .iter()
            .flat_map(|frozen| &frozen.tables)
            .flat_map(|table| &table.rows);
        let points = pending
            .iter()
            .flat_map(|points| points.iter())
            .map(|point| point.group);
        for group in open.chain(frozen.map(|row| row.group)).chain(points) {
            if let Some(used) = used.get_mut(group as usize) {
                *used = true;
            }
        }
        let numbers = self.renumber_groups(&used);
        self.meters
            .iter_mut()
            .flatten()
            .for_each(|meter| meter.open.renumber(&numbers));
        self.frozen
            .iter_mut()
            .flat_map(|frozen| &mut frozen.tables)
            .for_each(|table| table.renumber(&numbers));
        for point in pending.iter_mut().flat_map(|points| points.iter_mut()) {
            point.group = numbers.get(point.group as usize).copied().unwrap_or(NO_GROUP);
        }
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
}

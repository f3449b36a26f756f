//! Shapes: meters that count events of one type by the same dimensions, so that an event has one
//! key, and one row, for all of them.

use super::group::{NO_GROUP, NO_SLOT};
use super::table::Table;
use crate::meter::MeterSpec;

/// A row has a partial for each meter of its shape, also for those that do not apply to its events.
const MAX_METERS: usize = 16;

/// Which of the groups of a key is a meter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the shape.
    pub shape: u32,
    /// How many of the shape's meters stand before it; its column.
    pub offset: u32,
}

impl Place {
    /// The meter's group, given the first of the key's.
    #[inline]
    #[must_use]
    pub fn group(self, first: u32) -> u32 {
        if first == NO_GROUP {
            NO_GROUP
        } else {
            first + self.offset
        }
    }

    /// The first of the key's groups, given the meter's.
    #[inline]
    #[must_use]
    pub fn first(self, group: u32) -> u32 {
        group - self.offset
    }
}

/// One shape.
#[derive(Debug)]
pub struct Shape {
    event_type: String,
    dimensions: Vec<String>,
    /// Of its meters; `NO_SLOT` for one that was dropped.
    pub slots: Vec<u32>,
    /// What is still folded into.
    pub table: Table,
}

/// All shapes of a tenant.
#[derive(Debug, Default)]
pub struct Shapes(Vec<Shape>);

impl Shapes {
    /// Gives a meter its place. A shape with groups takes no more meters: each of its keys has a
    /// group for each meter it had. The newcomer begins another one of the same kind.
    pub fn join(&mut self, spec: &MeterSpec, slot: u32, has_groups: impl Fn(u32) -> bool) -> Place {
        let fits = |number: u32, shape: &Shape| {
            let same = shape.event_type == spec.event_type && shape.dimensions == spec.dimensions;
            same && shape.slots.len() < MAX_METERS && !has_groups(number)
        };
        let open = (0..)
            .zip(&self.0)
            .find(|(number, shape)| fits(*number, shape))
            .map(|(number, _)| number);
        let number = open.unwrap_or_else(|| {
            self.0.push(Shape {
                event_type: spec.event_type.clone(),
                dimensions: spec.dimensions.clone(),
                slots: Vec::new(),
                table: Table::default(),
            });
            index(self.0.len() - 1)
        });
        let shape = &mut self.0[number as usize];
        shape.slots.push(slot);
        let offset = index(shape.table.add_column(spec.aggregation));
        Place {
            shape: number,
            offset,
        }
    }

    /// The meter in a place is dropped.
    pub fn leave(&mut self, place: Place) {
        let shape = &mut self.0[place.shape as usize];
        shape.slots[place.offset as usize] = NO_SLOT;
        shape.table.forget_column(place.offset);
    }

    /// Slots of a shape's meters, in the order of their groups.
    #[inline]
    pub fn slots(&self, shape: u32) -> &[u32] {
        &self.0[shape as usize].slots
    }

    /// The open rows of a shape.
    #[inline]
    pub fn table(&self, shape: u32) -> &Table {
        &self.0[shape as usize].table
    }

    /// The same, to fold into.
    #[inline]
    pub fn table_mut(&mut self, shape: u32) -> &mut Table {
        &mut self.0[shape as usize].table
    }

    /// All of them, in the order of their numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Shape> {
        self.0.iter_mut()
    }

    /// The same, to look at.
    pub fn iter(&self) -> impl Iterator<Item = &Shape> {
        self.0.iter()
    }
}

fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

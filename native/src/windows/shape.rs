//! Shapes: meters that count events of one type by the same dimensions, so that an event has one
//! key for all of them.

use super::group::{NO_GROUP, NO_SLOT};
use crate::meter::MeterSpec;

/// Which of the groups of a key is a meter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the shape.
    pub shape: u32,
    /// How many of the shape's meters stand before it.
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
}

#[derive(Debug)]
struct Shape {
    event_type: String,
    dimensions: Vec<String>,
    /// Of its meters; `NO_SLOT` for one that was dropped.
    slots: Vec<u32>,
}

/// All shapes of a tenant.
#[derive(Debug, Default)]
pub struct Shapes(Vec<Shape>);

impl Shapes {
    /// Gives a meter its place. A shape with groups takes no more meters: each of its keys has a
    /// group for each meter it had. The newcomer begins another one of the same kind.
    pub fn join(&mut self, spec: &MeterSpec, slot: u32, has_groups: impl Fn(u32) -> bool) -> Place {
        let open = (0..).zip(&self.0).find(|(number, shape)| {
            shape.event_type == spec.event_type && shape.dimensions == spec.dimensions && !has_groups(*number)
        });
        let number = open.map(|(number, _)| number);
        let shape = number.unwrap_or_else(|| {
            self.0.push(Shape {
                event_type: spec.event_type.clone(),
                dimensions: spec.dimensions.clone(),
                slots: Vec::new(),
            });
            index(self.0.len() - 1)
        });
        let slots = &mut self.0[shape as usize].slots;
        slots.push(slot);
        Place {
            shape,
            offset: index(slots.len() - 1),
        }
    }

    /// The meter in a slot is dropped.
    pub fn leave(&mut self, place: Place) {
        self.0[place.shape as usize].slots[place.offset as usize] = NO_SLOT;
    }

    /// Slots of a shape's meters, in the order of their groups.
    #[inline]
    pub fn slots(&self, shape: u32) -> &[u32] {
        &self.0[shape as usize].slots
    }
}

fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

//! Windows of one tenant: groups, partials in memory, customers' spans, counters.
//!
//! Usage is a sum of partials: those in blocks of the database up to a checkpoint, those frozen
//! (on their way there) and those open (still folded into). A query or a counter's start merges
//! the three; which of the frozen ones the given blocks contain already follows from positions.

mod answer;
mod block;
mod codec;
mod compact;
mod counter;
mod filter;
mod frozen;
mod group;
mod load;
mod owner;
mod pack;
mod partial;
mod query;
mod router;
mod shape;
mod survey;
mod table;
#[cfg(test)]
mod tests;
mod wide;

use std::hint::black_box;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;

pub use answer::Since;
pub use block::{Block, day_of};
pub use counter::CounterRequest;
pub use frozen::{FrozenPart, Keys, Taken};
pub use group::{Lookup, NO_GROUP};
pub use load::CounterColumns;
pub use owner::Span;
pub use pack::merge_blocks;
pub use partial::{Arrival, Hashes, Partial};
pub use query::{Page, Query, QueryRequest, QueryResult};
pub use shape::Place;
pub use survey::{Answers, Form, SurveyRequest};
pub use wide::Wide;

use counter::Counters;
use frozen::{Frozen, FrozenTable};
use group::{Groups, NO_SLOT};
use owner::Owners;
use shape::Shapes;

use crate::error::{EngineError, Reason};
use crate::meter::{MINUTE_US, MeterSpec, Point, minute_of};

/// Points whose partials are looked up together.
const AHEAD: usize = 64;
/// Fewer groups than this are in the processor's cache anyway.
const MANY_GROUPS: usize = 4096;

/// All derived state of one tenant.
#[derive(Debug)]
pub struct Windows {
    tenant: u32,
    position: u64,
    /// What blocks in the database reach at least.
    flushed: u64,
    meters: Vec<Option<Meter>>,
    slots: HashMap<u32, u32, RandomState>,
    shapes: Shapes,
    groups: Groups,
    frozen: Vec<Frozen>,
    frozen_count: u64,
    /// Shared with queries under way.
    owners: Arc<Owners>,
    counters: Counters,
    /// Changes with whatever changes the routes from groups to counters; never 0.
    routing: u32,
}

#[derive(Debug)]
struct Meter {
    spec: Arc<MeterSpec>,
    place: Place,
}

impl Windows {
    /// A tenant without meters, at position 0.
    #[must_use]
    pub fn new(tenant: u32) -> Self {
        Self {
            tenant,
            position: 0,
            flushed: 0,
            meters: Vec::new(),
            slots: HashMap::default(),
            shapes: Shapes::default(),
            groups: Groups::default(),
            frozen: Vec::new(),
            frozen_count: 0,
            owners: Arc::default(),
            counters: Counters::default(),
            routing: 1,
        }
    }

    /// Makes a meter known. Putting the same again changes nothing; another of the same number
    /// replaces it and starts empty.
    pub fn put_meter(&mut self, spec: Arc<MeterSpec>) {
        if self.meter(spec.id).is_ok_and(|known| known.spec == spec) {
            return;
        }
        self.drop_meter(spec.id);
        let meter = spec.id;
        let free = self.meters.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.meters.push(None);
            self.meters.len() - 1
        });
        let slot = u32::try_from(at).unwrap_or(u32::MAX);
        let place = self.shapes.join(&spec, slot, |shape| self.groups.has_any(shape));
        self.meters[at] = Some(Meter { spec, place });
        self.slots.insert(meter, slot);
    }

    /// Forgets a meter with its partials and counters. Its groups are dead: points of them that
    /// are still on their way count nothing.
    pub fn drop_meter(&mut self, meter: u32) {
        let Some(slot) = self.slots.remove(&meter) else {
            return;
        };
        if let Some(gone) = self.meters[slot as usize].take() {
            self.shapes.leave(gone.place);
        }
        self.groups.kill(slot);
        for table in self.frozen.iter_mut().flat_map(|frozen| &mut frozen.tables) {
            if let Some(column) = table.column(meter) {
                table.meters[column as usize] = None;
            }
        }
        self.counters.drop_meter(meter);
        self.reroute();
    }

    /// The number of a group. The key is made by `meter::push_key_part`: the subject, then the
    /// dimensions. Valid until `compact_groups`; `NO_GROUP` for an unknown meter.
    pub fn group(&mut self, meter: u32, key: &[u8]) -> u32 {
        match self.place(meter) {
            Some(place) => place.group(self.family(place.shape, key)),
            None => NO_GROUP,
        }
    }

    /// Which of a family's groups is the meter's; valid until a meter is put or dropped.
    #[must_use]
    pub fn place(&self, meter: u32) -> Option<Place> {
        self.meter(meter).ok().map(|meter| meter.place)
    }

    /// As `family`, of many keys that may have been met before.
    pub fn find_families(&self, keys: &[u8], lookups: &mut [Lookup]) {
        self.groups.find_all(keys, lookups);
    }

    /// The first of the groups of a key, one for each meter of the shape.
    #[inline]
    pub fn family(&mut self, shape: u32, key: &[u8]) -> u32 {
        self.groups.intern(shape, self.shapes.slots(shape), key)
    }

    /// Merges the points of one segment into open partials and counters.
    pub fn fold(&mut self, points: &[Point], position: u64) {
        let mut rest = points;
        let mut touched = 0;
        while let Some(first) = rest.first() {
            if touched == 0 {
                touched = rest.len().min(AHEAD);
                self.touch(&rest[..touched]);
            }
            let minute = minute_of(first.time_us);
            let start = i64::from(minute) * MINUTE_US;
            // Compares times rather than minutes to divide once per run.
            let same = |point: &Point| {
                point.group == first.group && (start..start + MINUTE_US).contains(&point.time_us)
            };
            let length = 1 + rest[1..].iter().take_while(|point| same(point)).count();
            let (run, after) = rest.split_at(length);
            self.fold_run(run, minute, position);
            touched = touched.saturating_sub(length);
            rest = after;
        }
        self.position = position;
    }

    /// Reads what the points will change. In large tables each is several cache misses: nothing
    /// here waits for another point's, so that they are taken at the same time.
    fn touch(&self, points: &[Point]) {
        if self.groups.len() < MANY_GROUPS {
            return;
        }
        let live = points.iter().filter(|point| self.groups.is_live(point.group));
        black_box(live.fold(0, |all, point| all ^ self.groups.slot(point.group)));
        let mut before = (NO_GROUP, 0);
        let touch = |point: &Point| {
            let group = self.groups.is_live(point.group).then_some(point.group)?;
            let meter = self.meters[self.groups.slot(group) as usize].as_ref()?;
            let (first, minute) = (meter.place.first(group), minute_of(point.time_us));
            if before == (first, minute) {
                return None;
            }
            before = (first, minute);
            let table = self.shapes.table(meter.place.shape);
            let row = self
                .groups
                .recent(first, table.columns(), minute, table.version())?;
            Some(table.touch(row))
        };
        black_box(points.iter().filter_map(touch).fold(0, u64::wrapping_add));
    }

    /// Folds points of one group and minute.
    #[inline]
    fn fold_run(&mut self, run: &[Point], minute: i32, position: u64) {
        let id = run[0].group;
        if !self.groups.is_live(id) {
            return;
        }
        let slot = self.groups.slot(id);
        let Some(meter) = &self.meters[slot as usize] else {
            return;
        };
        let table = self.shapes.table_mut(meter.place.shape);
        let (first, columns, version) = (meter.place.first(id), table.columns(), table.version());
        let recent = self.groups.recent(first, columns, minute, version);
        let row = recent.unwrap_or_else(|| {
            let row = table.row(first, minute);
            self.groups.remember(first, columns, minute, version, row);
            row
        });
        let partial = table.partial(row, meter.place.offset);
        for point in run {
            partial.add(point, position);
        }
        if self.groups.version(id) != self.routing {
            let routes = self
                .counters
                .routes(meter.spec.id, self.groups.key(id), &self.owners);
            self.groups.route(id, self.routing, routes);
        }
        for route in self.groups.routes(id) {
            if (route.from_minute..route.to_minute).contains(&minute) {
                self.counters.add(route.target, minute, run, position);
            }
        }
    }

    /// The last position folded.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Sets the position, in recovery. With nothing in memory all up to it must be in blocks, so
    /// older blocks will be refused; call `fold` without points where that is not meant.
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
        if self.open_rows() == 0 && self.frozen.is_empty() {
            self.flushed = position;
        }
    }

    /// Forgets all partials and counters: blocks hold everything up to `position`, and folding
    /// goes on from there. Points that are still on their way must not be folded after this.
    pub fn rewind(&mut self, position: u64) {
        let mut fresh = Self::new(self.tenant);
        for meter in self.meters.drain(..).flatten() {
            fresh.put_meter(meter.spec);
        }
        fresh.owners = std::mem::take(&mut self.owners);
        fresh.frozen_count = self.frozen_count;
        fresh.set_position(position);
        *self = fresh;
    }

    /// Partials that are folded into.
    #[must_use]
    pub fn open_rows(&self) -> usize {
        self.shapes.iter().map(|shape| shape.table.len()).sum()
    }

    /// Partials on their way to the database.
    #[must_use]
    pub fn frozen_rows(&self) -> usize {
        self.frozen
            .iter()
            .flat_map(|frozen| &frozen.tables)
            .map(FrozenTable::len)
            .sum()
    }

    /// Interned groups.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Counters.
    #[must_use]
    pub fn counter_count(&self) -> usize {
        self.counters.len()
    }

    /// Subjects with an owner.
    #[must_use]
    pub fn subject_count(&self) -> usize {
        self.owners.len()
    }

    /// Takes all open partials out, to be written. Queries see them until `discard`.
    pub fn take(&mut self) -> Taken {
        self.frozen_count += 1;
        let mut tables = Vec::new();
        for (number, shape) in (0..).zip(self.shapes.iter_mut()) {
            if shape.table.is_empty() {
                continue;
            }
            tables.push(FrozenTable {
                shape: number,
                meters: specs(&self.meters, &shape.slots),
                rows: Arc::new(shape.table.take()),
            });
        }
        let (number, position) = (self.frozen_count, self.position);
        self.frozen.push(Frozen {
            number,
            position,
            tables: tables.clone(),
        });
        Taken {
            tenant: self.tenant,
            position,
            number,
            tables,
        }
    }

    /// Copies the keys of groups, ascending; valid until `compact_groups`.
    pub fn copy_keys(&self, groups: &[u32], keys: &mut Keys) {
        groups
            .iter()
            .filter(|group| (**group as usize) < self.groups.len())
            .for_each(|group| keys.push(*group, self.groups.key(*group)));
    }

    /// Takes all open partials out and makes blocks of them.
    pub fn freeze(&mut self) -> FrozenPart {
        let taken = self.take();
        let mut keys = Keys::default();
        self.copy_keys(&taken.groups(), &mut keys);
        FrozenPart {
            tenant: taken.tenant,
            position: taken.position,
            number: taken.number,
            blocks: taken.encode(&keys),
        }
    }

    /// Forgets a frozen part and all before it: their blocks are in the database.
    pub fn discard(&mut self, part_number: u64) {
        let gone = self.frozen.partition_point(|frozen| frozen.number <= part_number);
        for gone in self.frozen.drain(..gone) {
            self.flushed = self.flushed.max(gone.position);
        }
    }

    fn meter(&self, meter: u32) -> Result<&Meter, EngineError> {
        let known = self
            .slots
            .get(&meter)
            .and_then(|slot| self.meters[*slot as usize].as_ref());
        known.ok_or_else(|| EngineError::new(Reason::UnknownMeter, format!("no meter {meter}")))
    }

    fn reroute(&mut self) {
        // Skips 0, which marks groups never routed.
        self.routing = self.routing.checked_add(1).unwrap_or(1);
    }
}

/// The meters in slots; None for those that are gone.
fn specs(meters: &[Option<Meter>], slots: &[u32]) -> Vec<Option<Arc<MeterSpec>>> {
    let spec = |slot: &u32| match *slot {
        NO_SLOT => None,
        slot => meters[slot as usize]
            .as_ref()
            .map(|meter| Arc::clone(&meter.spec)),
    };
    slots.iter().map(spec).collect()
}

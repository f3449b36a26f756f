//! Groups: a meter, a subject and the values of the dimensions, as one small integer.

use std::hint::black_box;

use ahash::RandomState;
use hashbrown::HashTable;

use super::counter::Route;
use super::shape::Place;

/// The group of points that nothing counts any more.
pub const NO_GROUP: u32 = u32::MAX;

/// Slot of a meter that was dropped.
pub const NO_SLOT: u32 = u32::MAX;

/// Fewer families than this are in the processor's cache anyway.
const MANY_FAMILIES: usize = 4096;

/// What folding needs of a group, together in memory.
#[derive(Debug)]
struct Group {
    slot: u32,
    version: u32,
    routes: Box<[Route]>,
    /// Number of its family.
    family: u32,
    recent: Recent,
}

/// The row of a family and a minute in its shape's table. The groups of a family remember one
/// each, of different minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    minute: i32,
    row: u32,
    /// Of the table with these rows; 0: none.
    version: u32,
}

/// A key to be found, and the first group of its family once it was.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// Number of the shape.
    pub shape: u32,
    /// Where the key is in what comes with the look-ups.
    pub key: (usize, usize),
    /// `NO_GROUP`: not met before.
    pub first: u32,
    hash: u64,
}

impl Lookup {
    /// Of a key that is not found yet.
    #[must_use]
    pub fn new(shape: u32, key: (usize, usize)) -> Self {
        Self {
            shape,
            key,
            first: NO_GROUP,
            hash: 0,
        }
    }
}

/// The groups of one key: one for each meter of a shape, numbered in a row. Meters that count
/// the same events by the same dimensions meet the same keys, which are looked up once for all.
#[derive(Debug)]
struct Family {
    shape: u32,
    /// The first of its groups.
    first: u32,
    key_start: usize,
    key_end: usize,
    /// Another family of the same shape and subject.
    previous: u32,
}

/// Interned groups, numbered densely from 0; all keys lie in one arena.
#[derive(Debug, Default)]
pub struct Groups {
    table: HashTable<u32>,
    /// The last family of each (shape, subject); `previous` leads to the others.
    subjects: HashTable<u32>,
    hasher: RandomState,
    facts: Vec<Group>,
    families: Vec<Family>,
    arena: Vec<u8>,
}

const NO_FAMILY: u32 = u32::MAX;

impl Groups {
    /// Number of groups, dead ones too.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// The first group of (shape, key), the others follow; hands out new ones if needed, one for
    /// each of the slots.
    #[inline]
    pub fn intern(&mut self, shape: u32, slots: &[u32], key: &[u8]) -> u32 {
        let hash = self.hash(shape, key);
        match self.find_hashed(hash, shape, key) {
            Some(first) => first,
            None => self.add(hash, shape, slots, key),
        }
    }

    /// Finds many keys. In large tables each costs several cache misses that wait for one
    /// another: step by step for all keys they are taken at the same time.
    pub fn find_all(&self, keys: &[u8], lookups: &mut [Lookup]) {
        let key = |lookup: &Lookup| &keys[lookup.key.0..lookup.key.1];
        for lookup in &mut *lookups {
            lookup.hash = self.hash(lookup.shape, key(lookup));
        }
        if self.families.len() >= MANY_FAMILIES {
            self.touch(lookups);
        }
        for lookup in lookups {
            let found = self.find_hashed(lookup.hash, lookup.shape, key(lookup));
            lookup.first = found.unwrap_or(NO_GROUP);
        }
    }

    /// Reads what comparing keys will read, of the families that most likely are the ones.
    fn touch(&self, lookups: &mut [Lookup]) {
        for lookup in &mut *lookups {
            let likely = self.table.find(lookup.hash, |_| true);
            lookup.first = likely.copied().unwrap_or(NO_FAMILY);
        }
        let family = |lookup: &Lookup| self.families.get(lookup.first as usize);
        let read = lookups
            .iter()
            .filter_map(family)
            .fold(0, |all, one| all ^ one.key_start);
        black_box(read);
        let byte = |lookup: &Lookup| self.arena.get(family(lookup)?.key_start).copied();
        black_box(lookups.iter().filter_map(byte).fold(0, |all, one| all ^ one));
    }

    #[inline]
    fn find_hashed(&self, hash: u64, shape: u32, key: &[u8]) -> Option<u32> {
        let same = |&family: &u32| {
            let family = &self.families[family as usize];
            family.shape == shape && self.arena[family.key_start..family.key_end] == *key
        };
        let family = self.table.find(hash, same)?;
        Some(self.families[*family as usize].first)
    }

    fn add(&mut self, hash: u64, shape: u32, slots: &[u32], key: &[u8]) -> u32 {
        let number = |length: usize| u32::try_from(length).ok().filter(|&id| id != NO_GROUP);
        let end = number(self.facts.len() + slots.len());
        let (Some(first), Some(family), Some(_)) =
            (number(self.facts.len()), number(self.families.len()), end)
        else {
            return NO_GROUP;
        };
        let key_start = self.arena.len();
        self.arena.extend_from_slice(key);
        self.facts.extend(slots.iter().map(|&slot| Group {
            slot,
            version: 0,
            routes: Box::default(),
            family,
            recent: Recent::default(),
        }));
        self.families.push(Family {
            shape,
            first,
            key_start,
            key_end: self.arena.len(),
            previous: NO_FAMILY,
        });
        let (families, arena, hasher) = (&self.families, &self.arena, &self.hasher);
        self.table.insert_unique(hash, family, |&family| {
            let family = &families[family as usize];
            hasher.hash_one((family.shape, &arena[family.key_start..family.key_end]))
        });
        self.link(shape, subject(key), family);
        first
    }

    /// Makes the family the first that `of_subject` finds.
    fn link(&mut self, shape: u32, name: &[u8], family: u32) {
        let hash = self.hash(shape, name);
        let (families, arena, hasher) = (&self.families, &self.arena, &self.hasher);
        let place = |&family: &u32| {
            let family = &families[family as usize];
            (family.shape, subject(&arena[family.key_start..family.key_end]))
        };
        if let Some(last) = self
            .subjects
            .find_mut(hash, |family| place(family) == (shape, name))
        {
            let previous = std::mem::replace(last, family);
            self.families[family as usize].previous = previous;
            return;
        }
        self.subjects
            .insert_unique(hash, family, |family| hasher.hash_one(place(family)));
    }

    /// The first groups of a subject's families.
    pub fn of_subject(&self, shape: u32, name: &[u8]) -> impl Iterator<Item = u32> {
        let same = |&family: &u32| {
            let family = &self.families[family as usize];
            family.shape == shape && subject(&self.arena[family.key_start..family.key_end]) == name
        };
        let last = self.subjects.find(self.hash(shape, name), same).copied();
        let previous = |&id: &u32| Some(self.families[id as usize].previous).filter(|&id| id != NO_FAMILY);
        std::iter::successors(last, previous).map(|id| self.families[id as usize].first)
    }

    #[inline]
    fn hash(&self, shape: u32, key: &[u8]) -> u64 {
        self.hasher.hash_one((shape, key))
    }

    /// Whether points of the group count.
    pub fn is_live(&self, id: u32) -> bool {
        self.facts
            .get(id as usize)
            .is_some_and(|group| group.slot != NO_SLOT)
    }

    /// Slot of the group's meter.
    pub fn slot(&self, id: u32) -> u32 {
        self.facts[id as usize].slot
    }

    /// Version of the routing that the group's routes reflect.
    #[inline]
    pub fn version(&self, id: u32) -> u32 {
        self.facts[id as usize].version
    }

    /// The row of the family with this first group, if a group remembers it.
    #[inline]
    pub fn recent(&self, first: u32, columns: u32, minute: i32, version: u32) -> Option<u32> {
        let recent = self.facts[Self::keeper(first, columns, minute)].recent;
        (recent.minute == minute && recent.version == version).then_some(recent.row)
    }

    /// Remembers it, in place of an earlier one.
    pub fn remember(&mut self, first: u32, columns: u32, minute: i32, version: u32, row: u32) {
        self.facts[Self::keeper(first, columns, minute)].recent = Recent { minute, row, version };
    }

    /// Which of a family's groups remembers the row of a minute.
    #[inline]
    fn keeper(first: u32, columns: u32, minute: i32) -> usize {
        (first + minute.cast_unsigned() % columns) as usize
    }

    /// The counters that the group's points reach.
    #[inline]
    pub fn routes(&self, id: u32) -> &[Route] {
        &self.facts[id as usize].routes
    }

    /// Replaces them.
    pub fn route(&mut self, id: u32, version: u32, routes: Box<[Route]>) {
        let group = &mut self.facts[id as usize];
        group.version = version;
        group.routes = routes;
    }

    /// Key of the group.
    pub fn key(&self, id: u32) -> &[u8] {
        let family = &self.families[self.facts[id as usize].family as usize];
        &self.arena[family.key_start..family.key_end]
    }

    /// Whether any key of the shape was met.
    pub fn has_any(&self, shape: u32) -> bool {
        self.families.iter().any(|family| family.shape == shape)
    }

    /// Makes all groups of a slot dead.
    pub fn kill(&mut self, slot: u32) {
        for group in self.facts.iter_mut().filter(|group| group.slot == slot) {
            group.slot = NO_SLOT;
            group.routes = Box::default();
        }
    }

    /// Keeps only the families with a marked group that lives. `place` gives a slot's place
    /// and the slots of its shape. Returns the new number of each old group, `NO_GROUP` for those
    /// gone.
    pub fn compact<'a>(
        &mut self,
        used: &[bool],
        place: impl Fn(u32) -> Option<(Place, &'a [u32])>,
    ) -> Vec<u32> {
        let old = std::mem::take(self);
        let mut numbers = vec![NO_GROUP; old.len()];
        for (id, number) in (0_u32..).zip(&mut numbers) {
            if !used[id as usize] || !old.is_live(id) {
                continue;
            }
            if let Some((place, slots)) = place(old.slot(id)) {
                *number = place.group(self.intern(place.shape, slots, old.key(id)));
            }
        }
        numbers
    }
}

/// The parts of a key: the subject, then the dimensions' values. Stops at a part that is cut off.
#[derive(Clone, Debug)]
pub struct Parts<'a>(&'a [u8]);

/// Takes a key apart.
pub fn parts(key: &[u8]) -> Parts<'_> {
    Parts(key)
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.0 = rest;
        Some(part)
    }
}

impl Parts<'_> {
    /// Whether the key was nothing but these parts: ask after the last.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// The subject of a key.
pub fn subject(key: &[u8]) -> &[u8] {
    parts(key).next().unwrap_or_default()
}

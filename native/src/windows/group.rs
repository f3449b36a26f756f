//! Groups: a meter, a subject and the values of the dimensions, as one small integer.

use ahash::RandomState;
use hashbrown::HashTable;

use super::counter::Route;

/// The group of points that nothing counts any more.
pub const NO_GROUP: u32 = u32::MAX;

/// Slot of a meter that was dropped.
const NO_SLOT: u32 = u32::MAX;

/// What folding needs of a group, together in memory.
#[derive(Debug)]
struct Group {
    slot: u32,
    version: u32,
    routes: Box<[Route]>,
}

/// Interned groups, numbered densely from 0; all keys lie in one arena.
#[derive(Debug, Default)]
pub struct Groups {
    table: HashTable<u32>,
    /// The last group of each (slot, subject); `previous` leads to the others.
    subjects: HashTable<u32>,
    previous: Vec<u32>,
    hasher: RandomState,
    facts: Vec<Group>,
    ends: Vec<usize>,
    arena: Vec<u8>,
}

impl Groups {
    /// Number of groups, dead ones too.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// The number of (slot, key), handing out a new one if needed.
    pub fn intern(&mut self, slot: u32, key: &[u8]) -> u32 {
        let hash = self.hasher.hash_one((slot, key));
        let found = self
            .table
            .find(hash, |&id| self.slot(id) == slot && self.key(id) == key);
        if let Some(&id) = found {
            return id;
        }
        let Some(id) = u32::try_from(self.facts.len()).ok().filter(|&id| id != NO_GROUP) else {
            return NO_GROUP;
        };
        self.arena.extend_from_slice(key);
        self.ends.push(self.arena.len());
        self.facts.push(Group {
            slot,
            version: 0,
            routes: Box::default(),
        });
        let (facts, ends, arena, hasher) = (&self.facts, &self.ends, &self.arena, &self.hasher);
        self.table.insert_unique(hash, id, |&id| {
            hasher.hash_one((facts[id as usize].slot, slice(arena, ends, id)))
        });
        self.link(slot, subject(key), id);
        id
    }

    /// Makes the group the first that `of_subject` finds.
    fn link(&mut self, slot: u32, name: &[u8], id: u32) {
        let hash = self.hasher.hash_one((slot, name));
        let (facts, ends, arena, hasher) = (&self.facts, &self.ends, &self.arena, &self.hasher);
        let same = |&id: &u32| facts[id as usize].slot == slot && subject(slice(arena, ends, id)) == name;
        if let Some(last) = self.subjects.find_mut(hash, same) {
            self.previous.push(std::mem::replace(last, id));
            return;
        }
        self.previous.push(NO_GROUP);
        self.subjects.insert_unique(hash, id, |&id| {
            hasher.hash_one((facts[id as usize].slot, subject(slice(arena, ends, id))))
        });
    }

    /// The groups of a subject.
    pub fn of_subject(&self, slot: u32, name: &[u8]) -> impl Iterator<Item = u32> {
        let same = |&id: &u32| self.slot(id) == slot && subject(self.key(id)) == name;
        let last = self
            .subjects
            .find(self.hasher.hash_one((slot, name)), same)
            .copied();
        let previous = |&id: &u32| Some(self.previous[id as usize]).filter(|&id| id != NO_GROUP);
        std::iter::successors(last, previous)
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
        slice(&self.arena, &self.ends, id)
    }

    /// Makes all groups of a slot dead; their keys can be interned anew.
    pub fn kill(&mut self, slot: u32) {
        self.table.retain(|&mut id| self.facts[id as usize].slot != slot);
        self.subjects
            .retain(|&mut id| self.facts[id as usize].slot != slot);
        for group in self.facts.iter_mut().filter(|group| group.slot == slot) {
            group.slot = NO_SLOT;
            group.routes = Box::default();
        }
    }

    /// Keeps only the marked groups that live. Returns the new number of each old one, `NO_GROUP`
    /// for those gone.
    pub fn compact(&mut self, used: &[bool]) -> Vec<u32> {
        let old = std::mem::take(self);
        let mut numbers = vec![NO_GROUP; old.len()];
        for (id, number) in (0_u32..).zip(&mut numbers) {
            if used[id as usize] && old.is_live(id) {
                *number = self.intern(old.slot(id), old.key(id));
            }
        }
        numbers
    }
}

fn slice<'a>(arena: &'a [u8], ends: &[usize], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &arena[start..ends[id]]
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

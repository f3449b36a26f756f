//! Identities in memory.
//!
//! 24 bytes each, in tables that are between 3/4 and 7/8 full: 27 to 32 bytes
//! per identity. A table keeps its slots in the order of the hashes, which a
//! range reduction of the hash makes linear probing do: a search stops at the
//! first greater hash, and growing is one copy from front to back. 64 tables,
//! so that one admission pays for growing or expiring only a small one. Their
//! memory is in pieces of one size: what the copy has read is what it writes
//! into next, so nothing is held twice and no holes are left behind.

use super::{Day, Seen, Slot};
use crate::hash::{Content, Identity};

mod heap;
#[cfg(test)]
mod tests;

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;

/// A set of identities with the content each was first seen with.
#[derive(Debug)]
pub struct IdentityTable {
    shards: Vec<Shard>,
}

impl Default for IdentityTable {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }
}

impl IdentityTable {
    /// Remembers an identity unless it is known.
    #[inline]
    pub fn insert(&mut self, identity: Identity, content: Content, day: Day) -> Seen {
        let slot = Slot::new(identity, content, day);
        self.shards[Self::shard(identity)]
            .insert(slot)
            .map_or(Seen::New, |found| Seen::Before(found.content()))
    }

    /// Looks where an identity would be. Its answer is of no use but to have
    /// the place in the processor's cache when `insert` comes.
    #[inline]
    #[must_use]
    pub fn touch(&self, identity: Identity) -> u64 {
        let shard = &self.shards[Self::shard(identity)];
        let place = shard.place(identity);
        let Some(slots) = shard.chunks.get(place >> CHUNK_BITS) else {
            return 0;
        };
        // An insertion looks at five slots and moves some ten.
        let at = place & (CHUNK - 1);
        let lines = [at, at + 3, at + 6, at + 9].map(|at| slots.get(at).map_or(0, |slot| slot.tag));
        lines[0] ^ lines[1] ^ lines[2] ^ lines[3]
    }

    /// The top bits choose the shard, the ones below the place in it.
    #[inline]
    fn shard(identity: Identity) -> usize {
        usize::try_from(identity.high >> (u64::BITS - SHARD_BITS)).unwrap_or_default()
    }

    /// Number of identities.
    #[must_use]
    pub fn len(&self) -> usize {
        let counts = self.shards.iter().map(|shard| shard.count + shard.heap.len());
        counts.sum()
    }

    /// Number of those that no run has.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        let counts = self.shards.iter().map(|shard| shard.unsaved + shard.heap.len());
        counts.sum()
    }

    /// True if nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, slack included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let chunks = self.shards.iter().flat_map(|shard| &shard.chunks);
        let pieces = chunks.chain(self.shards.iter().map(|shard| &shard.heap));
        pieces.map(|piece| piece.capacity() * size_of::<Slot>()).sum()
    }

    /// Forgets what was last acceptable before `oldest` in one of the shards,
    /// numbered from 0, so that the caller can let others in between. Returns
    /// how many, None past the last shard.
    pub fn expire_shard(&mut self, shard: usize, oldest: Day) -> Option<usize> {
        let shard = self.shards.get_mut(shard)?;
        Some(shard.retain(|slot| slot.day() >= oldest))
    }

    /// As `expire_shard`, but only what runs have.
    pub(super) fn evict_shard(&mut self, shard: usize, oldest: Day) -> Option<usize> {
        let shard = self.shards.get_mut(shard)?;
        Some(shard.retain(|slot| slot.day() >= oldest || !slot.is_saved()))
    }

    /// What no run has of one of the shards, in order; from now on a run is
    /// taken to have it. None past the last shard.
    pub(super) fn save_shard(&mut self, shard: usize) -> Option<Vec<Slot>> {
        let shard = self.shards.get_mut(shard)?;
        shard.settle();
        let mut unsaved = Vec::with_capacity(shard.unsaved);
        if shard.unsaved > 0 {
            for slot in shard.chunks.iter_mut().flatten() {
                if !slot.is_empty() && !slot.is_saved() {
                    unsaved.push(*slot);
                    *slot = slot.saved();
                }
            }
        }
        shard.unsaved = 0;
        Some(unsaved)
    }

    /// Takes back that runs have anything.
    pub(super) fn unsave(&mut self) {
        for shard in &mut self.shards {
            shard.settle();
            shard
                .chunks
                .iter_mut()
                .flatten()
                .for_each(|slot| *slot = slot.unsaved());
            shard.unsaved = shard.count;
        }
    }

    /// A table of what runs have, given in order; `count` of them or fewer.
    pub(super) fn load<E>(count: usize, slots: impl Iterator<Item = Result<Slot, E>>) -> Result<Self, E> {
        let mut table = Self::default();
        let mut filler = Filler::new(0);
        let mut begun = 0;
        for slot in slots {
            let slot = slot?;
            let shard = Self::shard(slot.identity);
            while begun <= shard {
                if begun > 0 {
                    table.shards[begun - 1] = filler.finish();
                }
                filler = Filler::new(places_for(count / SHARDS));
                begun += 1;
            }
            filler.push(slot.saved());
        }
        if begun > 0 {
            table.shards[begun - 1] = filler.finish();
        }
        Ok(table)
    }
}

/// Slots in the order of the identities, some empty in between; the last one
/// always is, so that every search ends.
#[derive(Debug, Default)]
struct Shard {
    /// All but the last have the same length.
    chunks: Vec<Vec<Slot>>,
    /// Places that a hash may be sent to; the slots after them take overflow.
    places: usize,
    count: usize,
    unsaved: usize,
    /// What came from durable segments and is not sorted in yet, in the order
    /// that it came.
    heap: Vec<Slot>,
}

/// Slots after the last place, at least.
const TAIL: usize = 16;
const CHUNK_BITS: u32 = 12;
/// Below what an allocator maps apart, so that pieces let go are used again.
const CHUNK: usize = 1 << CHUNK_BITS;

/// A little less than full.
fn places_for(count: usize) -> usize {
    (count + count / 4).max(TAIL)
}

impl Shard {
    /// Keeps the order of hashes: a greater hash has no smaller place.
    #[inline]
    fn place(&self, identity: Identity) -> usize {
        let spread = u128::from(identity.high << SHARD_BITS) * self.places as u128;
        // Below `places`, which is a usize.
        usize::try_from(spread >> u64::BITS).unwrap_or_default()
    }

    /// Gives what is there already of that identity.
    #[inline]
    fn insert(&mut self, slot: Slot) -> Option<&mut Slot> {
        if !self.heap.is_empty() {
            self.settle();
        }
        if self.count >= self.places / 8 * 7 {
            let places = (self.places + self.places / 7).max(TAIL).next_multiple_of(8);
            self.rebuild(places, |_| true);
        }
        let place = self.place(slot.identity);
        let (mut chunk, mut at) = (place >> CHUNK_BITS, place & (CHUNK - 1));
        loop {
            let found = self.chunks[chunk][at..]
                .iter()
                .position(|found| found.is_empty() || found.identity >= slot.identity);
            if let Some(ahead) = found {
                at += ahead;
                break;
            }
            (chunk, at) = (chunk + 1, 0);
        }
        let found = self.chunks[chunk][at];
        if !found.is_empty() && found.identity == slot.identity {
            return Some(&mut self.chunks[chunk][at]);
        }
        self.shift(chunk, at, slot);
        None
    }

    /// Puts a slot where another may be, and those up to the next gap one on.
    #[inline]
    fn shift(&mut self, chunk: usize, at: usize, slot: Slot) {
        self.count += 1;
        self.unsaved += usize::from(!slot.is_saved());
        let is_last = chunk + 1 == self.chunks.len();
        let slots = &mut self.chunks[chunk];
        match slots[at..].iter().position(|slot| slot.is_empty()) {
            Some(ahead) if !is_last || at + ahead + 1 < slots.len() => {
                slots.copy_within(at..at + ahead, at + 1);
                slots[at] = slot;
            }
            _ => self.shift_far(chunk, at, slot),
        }
    }

    /// As `shift`, over the end of a piece or up to that of the table.
    #[cold]
    fn shift_far(&mut self, mut chunk: usize, mut at: usize, mut slot: Slot) {
        while !slot.is_empty() {
            if at == CHUNK {
                (chunk, at) = (chunk + 1, 0);
            }
            std::mem::swap(&mut self.chunks[chunk][at], &mut slot);
            at += 1;
        }
        if chunk + 1 == self.chunks.len() && at == self.chunks[chunk].len() {
            push_empty(&mut self.chunks);
        }
    }

    fn retain(&mut self, keep: impl Fn(&Slot) -> bool) -> usize {
        self.settle();
        let kept = self.slots().filter(|slot| keep(slot)).count();
        let before = self.count;
        if kept < before {
            self.rebuild(places_for(kept).next_multiple_of(8).min(self.places), keep);
        }
        before - kept
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.chunks.iter().flatten().filter(|slot| !slot.is_empty())
    }

    /// Copies in order, letting go of each piece that was read.
    fn rebuild(&mut self, places: usize, keep: impl Fn(&Slot) -> bool) {
        let mut next = Filler::new(places);
        for chunk in std::mem::take(&mut self.chunks) {
            for slot in chunk.iter().filter(|slot| !slot.is_empty() && keep(slot)) {
                next.push(*slot);
            }
        }
        *self = next.finish();
    }
}

/// Lets the table's end be empty again.
#[cold]
fn push_empty(chunks: &mut Vec<Vec<Slot>>) {
    match chunks.last_mut() {
        Some(last) if last.len() < CHUNK => extend(last, last.len() + TAIL),
        _ => chunks.push(vec![Slot::default(); TAIL]),
    }
}

fn extend(chunk: &mut Vec<Slot>, length: usize) {
    let length = length.min(CHUNK);
    chunk.reserve_exact(length - chunk.len());
    chunk.resize(length, Slot::default());
}

/// Fills a shard in order: each slot goes to its place or, if that is taken,
/// to the one after the last.
struct Filler {
    shard: Shard,
    /// The piece that is being filled, and the number of its first slot.
    piece: Vec<Slot>,
    begin: usize,
    free: usize,
}

impl Filler {
    fn new(places: usize) -> Self {
        let shard = Shard {
            places,
            ..Shard::default()
        };
        Self {
            shard,
            piece: vec![Slot::default(); CHUNK.min(places + TAIL)],
            begin: 0,
            free: 0,
        }
    }

    #[inline]
    fn push(&mut self, slot: Slot) {
        let at = self.shard.place(slot.identity).max(self.free);
        self.free = at + 1;
        self.shard.count += 1;
        self.shard.unsaved += usize::from(!slot.is_saved());
        if let Some(place) = self.piece.get_mut(at - self.begin) {
            *place = slot;
        } else {
            self.reach(at);
            self.piece[at - self.begin] = slot;
        }
    }

    /// Makes slots up to one, and those that are planned after it.
    #[cold]
    fn reach(&mut self, at: usize) {
        while at - self.begin >= CHUNK {
            extend(&mut self.piece, CHUNK);
            self.begin += CHUNK;
            let planned = (self.shard.places + TAIL).saturating_sub(self.begin);
            let next = vec![Slot::default(); planned.clamp(TAIL, CHUNK)];
            self.shard.chunks.push(std::mem::replace(&mut self.piece, next));
        }
        if at - self.begin >= self.piece.len() {
            extend(&mut self.piece, at - self.begin + TAIL);
        }
    }

    fn finish(mut self) -> Shard {
        // Some are empty at the end, the last one always.
        self.reach((self.shard.places + TAIL - 1).max(self.free));
        self.shard.chunks.push(self.piece);
        self.shard
    }
}

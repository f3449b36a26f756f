//! The identities of one tenant that count once.
//!
//! 24 bytes each, in tables that are never more than 3/4 full and grow by a
//! quarter: 32 to 40 bytes per identity. A table keeps its slots in the order
//! of the hashes, which a range reduction of the hash makes linear probing
//! do: a search stops at the first greater hash, and growing is one copy
//! from front to back. 64 tables, so that one admission pays for growing or
//! expiring only a small one.

use crate::hash::{Content, Identity};

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;
const DAY_US: i64 = 86_400_000_000;
const DAY_BITS: u32 = 16;

/// Day until which an identity counts as seen, from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u16);

impl Day {
    /// The day of an instant. Never 0, which marks an empty slot.
    #[must_use]
    pub fn of(time_us: i64) -> Self {
        let day = time_us.div_euclid(DAY_US).clamp(1, u16::MAX.into());
        Self(u16::try_from(day).unwrap_or(u16::MAX))
    }
}

/// What the table knew of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing; now it does.
    New,
    /// The content first seen.
    Before(Content),
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    identity: Identity,
    /// Content (48 bits), day (16 bits); 0 when empty.
    tag: u64,
}

impl Slot {
    fn new(identity: Identity, content: Content, day: Day) -> Self {
        Self {
            identity,
            tag: content.bits() << DAY_BITS | u64::from(day.0),
        }
    }

    fn is_empty(self) -> bool {
        self.tag == 0
    }

    fn content(self) -> Content {
        Content::new(self.tag >> DAY_BITS)
    }

    fn day(self) -> u64 {
        self.tag & u64::from(u16::MAX)
    }
}

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
        self.shards[Self::shard(identity)].insert(Slot::new(identity, content, day))
    }

    /// Looks where an identity would be. Its answer is of no use but to have
    /// the place in the processor's cache when `insert` comes.
    #[inline]
    #[must_use]
    pub fn touch(&self, identity: Identity) -> u64 {
        let shard = &self.shards[Self::shard(identity)];
        let place = shard.place(identity);
        // An insertion looks at some five slots: three lines of cache.
        let lines = [place, place + 3, place + 6].map(|at| shard.slots.get(at).map_or(0, |slot| slot.tag));
        lines[0] ^ lines[1] ^ lines[2]
    }

    /// The top bits choose the shard, the ones below the place in it.
    #[inline]
    fn shard(identity: Identity) -> usize {
        usize::try_from(identity.high >> (u64::BITS - SHARD_BITS)).unwrap_or_default()
    }

    /// Number of identities.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.count).sum()
    }

    /// True if nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, slack included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.slots.capacity() * size_of::<Slot>())
            .sum()
    }

    /// Forgets what was last acceptable before `oldest` in one of the shards,
    /// numbered from 0, so that the caller can let others in between. Returns
    /// how many, None past the last shard.
    pub fn expire_shard(&mut self, shard: usize, oldest: Day) -> Option<usize> {
        self.shards.get_mut(shard).map(|shard| shard.expire(oldest))
    }
}

/// Slots in the order of the identities, some empty in between; the last one
/// always is, so that every search ends.
#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Slot>,
    /// Places that a hash may be sent to; the slots after them take overflow.
    places: usize,
    count: usize,
}

/// Slots after the last place, at first.
const TAIL: usize = 16;

impl Shard {
    fn new(places: usize, tail: usize) -> Self {
        Self {
            slots: vec![Slot::default(); places + tail],
            places,
            count: 0,
        }
    }

    /// Keeps the order of hashes: a greater hash has no smaller place.
    #[inline]
    fn place(&self, identity: Identity) -> usize {
        let spread = u128::from(identity.high << SHARD_BITS) * self.places as u128;
        // Below `places`, which is a usize.
        usize::try_from(spread >> u64::BITS).unwrap_or_default()
    }

    #[inline]
    fn insert(&mut self, slot: Slot) -> Seen {
        if self.count >= self.places / 4 * 3 {
            self.grow();
        }
        loop {
            match self.try_insert(slot) {
                Some(seen) => return seen,
                None => self.rebuild(self.places, 2 * (self.slots.len() - self.places), |_| true),
            }
        }
    }

    /// None when the tail is full.
    #[inline]
    fn try_insert(&mut self, slot: Slot) -> Option<Seen> {
        let mut at = self.place(slot.identity);
        while !self.slots[at].is_empty() && self.slots[at].identity < slot.identity {
            at += 1;
        }
        let found = self.slots[at];
        if !found.is_empty() && found.identity == slot.identity {
            return Some(Seen::Before(found.content()));
        }
        let gap = at + self.slots[at..].iter().position(|slot| slot.is_empty())?;
        if gap + 1 == self.slots.len() {
            return None;
        }
        self.slots.copy_within(at..gap, at + 1);
        self.slots[at] = slot;
        self.count += 1;
        Some(Seen::New)
    }

    fn grow(&mut self) {
        let places = (self.places + self.places / 4).max(16).next_multiple_of(8);
        self.rebuild(places, TAIL, |_| true);
    }

    fn expire(&mut self, oldest: Day) -> usize {
        let kept = self
            .slots
            .iter()
            .filter(|slot| slot.day() >= oldest.0.into())
            .count();
        let before = self.count;
        if kept < before {
            let places = (kept / 4 * 5 + 16).next_multiple_of(8).min(self.places);
            self.rebuild(places, TAIL, |slot| slot.day() >= oldest.0.into());
        }
        before - kept
    }

    /// Copies in order: each goes to its place or, if that is taken, to the
    /// slot after the last.
    fn rebuild(&mut self, places: usize, mut tail: usize, keep: impl Fn(&Slot) -> bool) {
        loop {
            let mut next = Self::new(places, tail);
            if next.fill(self.slots.iter().filter(|slot| !slot.is_empty() && keep(slot))) {
                *self = next;
                return;
            }
            tail *= 2;
        }
    }

    /// False when the tail is full.
    fn fill<'a>(&mut self, slots: impl Iterator<Item = &'a Slot>) -> bool {
        let mut free = 0;
        for slot in slots {
            let at = self.place(slot.identity).max(free);
            if at + 1 >= self.slots.len() {
                return false;
            }
            self.slots[at] = *slot;
            self.count += 1;
            free = at + 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn spread(seed: u64) -> Identity {
        // SplitMix64: as even as the real hash.
        let mix = |mut x: u64| {
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        Identity {
            high: mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            low: seed,
        }
    }

    #[test]
    fn a_million_identities_stay_under_forty_bytes_each() {
        let mut table = IdentityTable::default();
        for seed in 0..1_000_000 {
            assert_eq!(
                table.insert(spread(seed), Content::new(seed), Day(20_000)),
                Seen::New
            );
            if seed > 100_000 && seed % 50_000 == 0 {
                assert!(
                    table.bytes() / table.len() < 40,
                    "{} at {seed}",
                    table.bytes() / table.len()
                );
            }
        }
        for seed in 0..1_000_000 {
            assert_eq!(
                table.insert(spread(seed), Content::new(9), Day(1)),
                Seen::Before(Content::new(seed)),
                "{seed}"
            );
        }
        assert_eq!(table.len(), 1_000_000);
    }

    #[test]
    fn expiry_drops_older_days_only() {
        let mut table = IdentityTable::default();
        for seed in 0..10_000 {
            let day = Day(if seed % 3 == 0 { 100 } else { 101 });
            table.insert(spread(seed), Content::new(seed), day);
        }
        let dropped: usize = (0..SHARDS)
            .filter_map(|shard| table.expire_shard(shard, Day(101)))
            .sum();
        assert_eq!((dropped, table.len()), (3334, 6666));
        for seed in 0..10_000 {
            let seen = table.insert(spread(seed), Content::new(seed), Day(101));
            assert_eq!(seen == Seen::New, seed % 3 == 0);
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            // Few and extreme hashes: long runs, equal high halves, full tails.
            keys in prop::collection::vec((prop::sample::select(vec![0, 1, 1 << 57, u64::MAX - 1, u64::MAX]), 0..40_u64), 0..300)
        ) {
            let mut table = IdentityTable::default();
            let mut model = HashMap::new();
            for (i, (high, low)) in (0..).zip(keys) {
                let seen = table.insert(Identity { high, low }, Content::new(i), Day(7));
                if let Some(first) = model.get(&(high, low)).copied() {
                    prop_assert_eq!(seen, Seen::Before(Content::new(first)));
                } else {
                    prop_assert_eq!(seen, Seen::New);
                    model.insert((high, low), i);
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
    }
}

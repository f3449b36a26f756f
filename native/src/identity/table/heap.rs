//! Many identities at once: gathered in heaps, sorted in together.
//!
//! Putting one into a table of millions is a cache miss or two; sorting a heap
//! and copying it in from front to back is none. A heap is sorted in when it
//! is as large as its shard, or when somebody asks for the shard.

use std::thread;

use super::{Filler, IdentityTable, Shard, Slot, places_for};

/// Smaller heaps wait.
const LEAST: usize = 1 << 14;
/// Of a shard: a smaller heap is put in one by one.
const FEW: usize = 16;

impl IdentityTable {
    /// Remembers identities that durable events have. One that was seen before
    /// on an earlier day had been forgotten when it came again.
    pub(crate) fn remember_all(&mut self, slots: &[Slot]) {
        for slot in slots {
            let shard = &mut self.shards[Self::shard(slot.identity)];
            shard.heap.push(*slot);
            if shard.heap.len() >= shard.count.max(LEAST) {
                shard.settle();
            }
        }
    }

    /// Sorts in what is in heaps; several threads share the work.
    pub fn settle(&mut self) {
        if self.shards.iter().all(|shard| shard.heap.is_empty()) {
            return;
        }
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = self.shards.len().div_ceil(threads);
        thread::scope(|scope| {
            for shards in self.shards.chunks_mut(share) {
                scope.spawn(|| shards.iter_mut().for_each(Shard::settle));
            }
        });
    }
}

impl Shard {
    /// Sorts its heap in.
    pub(super) fn settle(&mut self) {
        let heap = std::mem::take(&mut self.heap);
        if heap.len() < self.count / FEW {
            for slot in heap {
                self.remember(slot);
            }
        } else if !heap.is_empty() {
            self.absorb(heap);
        }
    }

    fn remember(&mut self, slot: Slot) {
        let Some(found) = self.insert(slot) else { return };
        let before = *found;
        if before.day() < slot.day() {
            *found = slot;
            // What runs have is not this one.
            self.unsaved += usize::from(before.is_saved());
        }
    }

    /// One copy from front to back of what is there and what is new.
    fn absorb(&mut self, mut heap: Vec<Slot>) {
        // Of equals the first stays first.
        heap.sort_by_key(|slot| slot.identity);
        let places = places_for(self.count + heap.len()).next_multiple_of(8);
        let mut next = Filler::new(places);
        let mut last: Option<Slot> = None;
        let mut push = |slot: Slot| match &mut last {
            Some(same) if same.identity == slot.identity => {
                if same.day() < slot.day() {
                    *same = slot;
                }
            }
            _ => {
                if let Some(before) = last.replace(slot) {
                    next.push(before);
                }
            }
        };
        let mut new = heap.into_iter().peekable();
        for chunk in std::mem::take(&mut self.chunks) {
            for old in chunk.iter().filter(|slot| !slot.is_empty()) {
                while let Some(slot) = new.next_if(|slot| slot.identity < old.identity) {
                    push(slot);
                }
                push(*old);
            }
        }
        new.for_each(&mut push);
        if let Some(slot) = last {
            next.push(slot);
        }
        *self = next.finish();
    }
}

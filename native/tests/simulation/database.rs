//! What the SQL does, in memory: segments, heads, the epoch, blocks, checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use _native::SealedGroup;
use _native::event::Event;
use _native::freeze::Frozen;
use _native::segment::{Digest, Segment, decompress, event_slices, read_stored};
use _native::windows::{Block, merge_blocks};

/// A durable event: where it is, and what was used of which model.
pub struct Stored {
    pub position: u64,
    pub model: String,
    pub value: u64,
}

#[derive(Default)]
pub struct Tenant {
    pub segments: Vec<Arc<Segment>>,
    /// By id: each once, or `append` fails the schedule.
    pub events: BTreeMap<String, Stored>,
    pub blocks: Vec<Arc<Block>>,
    pub checkpoint: u64,
}

#[derive(Default)]
pub struct Database {
    pub epoch: u64,
    pub tenants: BTreeMap<u32, Tenant>,
}

impl Tenant {
    pub fn head(&self) -> u64 {
        self.segments.len() as u64
    }

    pub fn digest_at(&self, position: u64) -> Digest {
        let before = usize::try_from(position).unwrap().checked_sub(1);
        before.map_or([0; 32], |at| self.segments[at].digest)
    }

    /// What durable events up to a position add up to, by model.
    pub fn totals(&self, position: u64) -> BTreeMap<String, (u64, u64)> {
        let mut totals = BTreeMap::new();
        for event in self.events.values().filter(|event| event.position <= position) {
            let (value, count) = totals.entry(event.model.clone()).or_insert((0, 0));
            *value += event.value;
            *count += 1;
        }
        totals
    }
}

impl Database {
    pub fn take_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// One transaction: all segments of a group, or nothing.
    pub fn append(&mut self, epoch: u64, group: &SealedGroup) -> bool {
        if epoch != self.epoch {
            return false;
        }
        let mut heads: BTreeMap<u32, u64> = BTreeMap::new();
        for segment in &group.segments {
            let head = heads
                .entry(segment.header.tenant)
                .or_insert_with(|| self.tenants[&segment.header.tenant].head());
            if segment.header.position != *head + 1 {
                return false;
            }
            *head += 1;
        }
        for segment in &group.segments {
            self.insert(segment);
        }
        true
    }

    /// The chain holds, and no event is durable twice.
    fn insert(&mut self, segment: &Arc<Segment>) {
        let header = segment.header;
        let tenant = self.tenants.get_mut(&header.tenant).unwrap();
        assert_eq!(segment.previous_digest, tenant.digest_at(tenant.head()));
        assert_eq!(segment.verify(), Ok(segment.digest));
        let raw = decompress(segment.codec, &segment.payload, header.raw_bytes as usize).unwrap();
        for (index, bytes) in (0..).zip(event_slices(&raw).unwrap()) {
            let mut event = Event::default();
            read_stored(&mut event, bytes, index).unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let stored = Stored {
                position: header.position,
                model: text(event.property_value(b"model").unwrap()),
                value: text(event.property_value(b"n").unwrap()).parse().unwrap(),
            };
            let before = tenant.events.insert(text(event.id), stored);
            assert!(before.is_none(), "event {} is durable twice", text(event.id));
        }
        tenant.segments.push(Arc::clone(segment));
    }

    /// Whether exactly this group is durable, told by its last segment.
    pub fn is_durable(&self, group: &SealedGroup) -> bool {
        let last = group.segments.last().unwrap();
        let tenant = &self.tenants[&last.header.tenant];
        tenant.head() >= last.header.position && tenant.digest_at(last.header.position) == last.digest
    }

    /// One transaction: blocks go in where the checkpoint moves.
    pub fn write(&mut self, epoch: u64, frozen: &Frozen) -> bool {
        if epoch != self.epoch {
            return false;
        }
        for &(id, position) in &frozen.positions {
            let tenant = self.tenants.get_mut(&id).unwrap();
            if tenant.checkpoint < position {
                assert!(position <= tenant.head(), "a checkpoint beyond the head");
                tenant.checkpoint = position;
                let own = frozen.blocks.iter().filter(|block| block.tenant == id);
                tenant.blocks.extend(own.cloned());
            }
        }
        true
    }

    /// Merges all blocks of the first meter and day that has several.
    pub fn merge(&mut self, id: u32) {
        let tenant = self.tenants.get_mut(&id).unwrap();
        let Some(first) = tenant.blocks.first() else {
            return;
        };
        let (meter, day) = (first.meter, first.day);
        let all = std::mem::take(&mut tenant.blocks);
        let (same, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|block| (block.meter, block.day) == (meter, day));
        let payloads: Vec<&[u8]> = same.iter().map(|block| &block.payload[..]).collect();
        let merged = merge_blocks(id, meter, day, &payloads).unwrap();
        tenant.blocks = others;
        tenant.blocks.extend(merged.into_iter().map(Arc::new));
    }
}

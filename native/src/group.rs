//! Groups: the events that one commit makes durable, from the first one
//! admitted until they are folded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::engine::View;
use crate::identity::{History, IdentityTable};
use crate::meter::Point;
use crate::observe::MeterSet;
use crate::segment::{Digest, Segment};
use crate::windows::Windows;

/// A tenant's part of a group is cut when a segment has this many bytes.
pub const SEGMENT_BYTES: usize = 4 << 20;

/// A segment in the making. Points are apart from the bytes, because they
/// outlive them and are renumbered when groups are compacted.
#[derive(Debug)]
pub struct Draft {
    pub tenant: u32,
    pub raw: Vec<u8>,
    pub points: Vec<Point>,
    pub event_count: u32,
    pub min_time_us: i64,
    pub max_time_us: i64,
}

impl Draft {
    fn new(tenant: u32, (raw, points): Buffers) -> Self {
        Self {
            tenant,
            raw,
            points,
            event_count: 0,
            min_time_us: i64::MAX,
            max_time_us: i64::MIN,
        }
    }
}

/// Memory of a draft that is folded, for the next one: fresh memory costs more
/// than what is written into it.
pub type Buffers = (Vec<u8>, Vec<Point>);

/// Drafts' memory that is kept.
const SPARE_BUFFERS: usize = 4;

/// What one commit makes durable.
#[derive(Debug)]
pub struct Group {
    pub number: u64,
    pub drafts: Vec<Draft>,
    /// Each tenant's draft that still takes events.
    filling: HashMap<u32, usize, ahash::RandomState>,
}

impl Group {
    pub fn new(number: u64) -> Self {
        Self {
            number,
            drafts: Vec::new(),
            filling: HashMap::default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }
}

/// Where a tenant's accepted events go.
pub struct Intake<'s> {
    pub tenant: u32,
    pub group: &'s mut Group,
    pub spare: &'s mut Vec<Buffers>,
}

impl Intake<'_> {
    /// The draft that takes the next event; one that is begun counts as pending.
    #[inline]
    pub fn draft(&mut self, pending: &mut u64) -> &mut Draft {
        let group = &mut *self.group;
        let filling = group.filling.get(&self.tenant).copied();
        let open = filling.filter(|&at| group.drafts[at].raw.len() < SEGMENT_BYTES);
        let at = open.unwrap_or_else(|| {
            *pending += 1;
            group
                .drafts
                .push(Draft::new(self.tenant, self.spare.pop().unwrap_or_default()));
            group.filling.insert(self.tenant, group.drafts.len() - 1);
            group.drafts.len() - 1
        });
        &mut group.drafts[at]
    }
}

/// A draft with its place in the chain.
#[derive(Debug)]
pub struct Part {
    pub position: u64,
    /// Kept until the group is sealed, so that sealing can be tried again.
    pub draft: Arc<Draft>,
    pub points: Vec<Point>,
}

/// The group whose commit is under way.
#[derive(Debug)]
pub struct Committing {
    pub number: u64,
    pub parts: VecDeque<Part>,
    pub sealed: Option<Arc<SealedGroup>>,
}

/// The events of one commit: to be made durable whole, then folded.
#[derive(Debug)]
pub struct SealedGroup {
    /// Its number.
    pub number: u64,
    /// In the order in which they are folded.
    pub segments: Vec<Arc<Segment>>,
}

impl SealedGroup {
    /// Over all segments.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| u64::from(segment.header.event_count))
            .sum()
    }
}

/// Everything about one tenant.
pub struct Tenant {
    /// Position and digest of the last segment folded or replayed.
    pub head: u64,
    pub digest: Digest,
    /// Segments begun and not folded: they will get the positions after head.
    pub pending: u64,
    pub identities: IdentityTable,
    pub history: History,
    pub windows: Windows,
    pub meters: Arc<MeterSet>,
}

impl Tenant {
    pub fn view(&self) -> View {
        View {
            meters: Arc::clone(&self.meters),
            cold: Arc::clone(&self.history.cold),
        }
    }

    pub fn is_seen_by(&self, view: &View) -> bool {
        Arc::ptr_eq(&self.meters, &view.meters) && Arc::ptr_eq(&self.history.cold, &view.cold)
    }
}

/// Everything that admission, commits and queries share.
pub struct State {
    pub tenants: HashMap<u32, Tenant>,
    pub open: Group,
    /// Closed, not yet sealed; oldest first.
    pub queue: VecDeque<Group>,
    pub committing: Option<Committing>,
    pub spare: Vec<Buffers>,
}

impl State {
    pub fn new() -> Self {
        Self {
            tenants: HashMap::new(),
            open: Group::new(1),
            queue: VecDeque::new(),
            committing: None,
            spare: Vec::new(),
        }
    }

    /// Keeps the memory of a part that was folded.
    pub fn reuse(&mut self, part: Part) {
        let Ok(Draft { mut raw, .. }) = Arc::try_unwrap(part.draft) else {
            return;
        };
        let mut points = part.points;
        if self.spare.len() < SPARE_BUFFERS {
            raw.clear();
            points.clear();
            self.spare.push((raw, points));
        }
    }

    /// Later events go to another group.
    pub fn close_open_group(&mut self) {
        if !self.open.is_empty() {
            let next = Group::new(self.open.number + 1);
            self.queue.push_back(std::mem::replace(&mut self.open, next));
        }
    }

    /// The youngest group with events that are not folded; 0 for none.
    pub fn youngest_group(&self) -> u64 {
        if !self.open.is_empty() {
            return self.open.number;
        }
        let queued = self.queue.back().map(|group| group.number);
        queued
            .or(self.committing.as_ref().map(|group| group.number))
            .unwrap_or(0)
    }

    /// True if `seal` would give a group.
    pub fn has_work(&self) -> bool {
        self.youngest_group() > 0
    }

    /// Lets go of the groups that only old windows name. All points that are
    /// not folded yet are renumbered with them.
    pub fn compact_groups(&mut self, tenant: u32) {
        let Some(windows) = self.tenants.get_mut(&tenant).map(|tenant| &mut tenant.windows) else {
            return;
        };
        let drafts = self
            .queue
            .iter_mut()
            .chain([&mut self.open])
            .flat_map(|group| &mut group.drafts);
        let drafts = drafts
            .filter(|draft| draft.tenant == tenant)
            .map(|draft| &mut draft.points);
        let parts = self.committing.iter_mut().flat_map(|group| &mut group.parts);
        let parts = parts
            .filter(|part| part.draft.tenant == tenant)
            .map(|part| &mut part.points);
        windows.compact_groups(&mut drafts.chain(parts).collect::<Vec<_>>());
    }
}

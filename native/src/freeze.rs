//! Checkpoints: partials leave the open tables and become blocks.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::engine::Engine;
use crate::windows::{Block, Keys, Taken};

/// Fewer interned groups than this are never worth compacting.
const MANY_GROUPS: usize = 1_000_000;
/// Keys that are copied before others may have the lock.
const KEYS_AT_ONCE: usize = 4096;

/// Partials taken out of the open tables to be written to the database.
#[derive(Debug, Default)]
pub struct Frozen {
    /// (tenant, position): the blocks complete each tenant up to here.
    pub positions: Vec<(u32, u64)>,
    /// Of all tenants.
    pub blocks: Vec<Arc<Block>>,
    /// (tenant, number of its frozen part).
    parts: Vec<(u32, u64)>,
}

impl Frozen {
    /// Partials in the blocks.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.row_count)).sum()
    }
}

impl Engine {
    /// Moves all partials of folded groups out of the open tables. What takes long, to sort and
    /// pack them, is done while others admit and fold.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let _numbered = self.numbered.lock();
        let mut frozen = Frozen::default();
        let mut tenants: Vec<u32> = self.state.lock().tenants.keys().copied().collect();
        tenants.sort_unstable();
        for id in tenants {
            let Some(taken) = self.take(id) else { continue };
            let keys = self.copy_keys(id, &taken.groups());
            frozen.positions.push((id, taken.position));
            frozen.parts.push((id, taken.number));
            frozen
                .blocks
                .extend(taken.encode(&keys).into_iter().map(Arc::new));
        }
        frozen
    }

    fn take(&self, id: u32) -> Option<Taken> {
        let mut state = self.state.lock();
        let windows = &state.tenants.get(&id)?.windows;
        let groups = windows.group_count();
        if groups > MANY_GROUPS && groups / 2 > windows.open_rows() {
            state.compact_groups(id);
        }
        Some(state.tenants.get_mut(&id)?.windows.take())
    }

    fn copy_keys(&self, id: u32, groups: &[u32]) -> Keys {
        let mut keys = Keys::default();
        let mut state = self.state.lock();
        for groups in groups.chunks(KEYS_AT_ONCE) {
            if let Some(tenant) = state.tenants.get(&id) {
                tenant.windows.copy_keys(groups, &mut keys);
            }
            MutexGuard::bump(&mut state);
        }
        keys
    }

    /// Forgets a frozen table, and those frozen before it.
    pub fn discard(&self, frozen: &Frozen) {
        let mut state = self.state.lock();
        for &(tenant, number) in &frozen.parts {
            if let Ok(tenant) = state.tenant(tenant) {
                tenant.windows.discard(number);
            }
        }
    }
}

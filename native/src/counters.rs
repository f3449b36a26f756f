//! What is done with many counters at once, and questions to a tenant's windows.

use crate::engine::Engine;
use crate::error::EngineError;
use crate::windows::{CounterColumns, Windows};

impl Engine {
    /// Keeps many of one meter from now on.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT` and those of `Windows::put_counters`.
    pub fn put_counters(
        &self,
        tenant: u32,
        columns: &CounterColumns,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<(), EngineError> {
        self.state
            .lock()
            .tenant(tenant)?
            .windows
            .put_counters(columns, blocks, checkpoint)
    }

    /// Says which counters `take_touched` is to tell of.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn watch_counters(&self, tenant: u32, counters: &[u64], watched: bool) -> Result<(), EngineError> {
        self.state
            .lock()
            .tenant(tenant)?
            .windows
            .watch_counters(counters, watched);
        Ok(())
    }

    /// By tenant, the watched counters that changed, or were put, since it was asked last.
    #[must_use]
    pub fn take_touched(&self) -> Vec<(u32, Vec<u64>)> {
        let mut state = self.state.lock();
        let touched = state
            .tenants
            .iter_mut()
            .map(|(id, tenant)| (*id, tenant.windows.take_touched()));
        touched.filter(|(_, counters)| !counters.is_empty()).collect()
    }

    /// Asks a tenant's windows for what nothing else here does.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT` and those of the question.
    pub fn ask<T>(
        &self,
        tenant: u32,
        question: impl FnOnce(&Windows) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        question(&self.state.lock().tenant(tenant)?.windows)
    }

    /// As `ask`, unless it would have to wait for the lock.
    pub fn try_ask<T>(
        &self,
        tenant: u32,
        question: impl FnOnce(&Windows) -> Result<T, EngineError>,
    ) -> Option<Result<T, EngineError>> {
        let mut state = self.state.try_lock()?;
        Some(state.tenant(tenant).and_then(|tenant| question(&tenant.windows)))
    }
}

//! How an engine begins with runs.

use std::path::PathBuf;
use std::sync::Arc;

use super::run::{Meta, Run};
use super::store::{Filtered, list, remove};
use super::tidy::probe;
use super::write::merged;
use super::{Day, IdentityTable, RunTag};
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// What a tenant's files say of themselves, oldest first; those of no use
    /// are removed.
    ///
    /// # Errors
    /// None but for an engine without runs.
    pub fn stored_runs(&self, tenant: u32) -> Result<Vec<RunTag>, EngineError> {
        let found = list(&self.files()?.directory, tenant, probe(&self.hasher));
        let tag = |(_, meta): &(PathBuf, Meta)| RunTag {
            to: meta.to,
            position: meta.position,
            digest: meta.digest,
        };
        Ok(found.iter().map(tag).collect())
    }

    /// Takes the first `trusted` files of a tenant that was opened and knows
    /// nothing. Returns the position up to which all identities are known that
    /// segments after `after` have. Damaged files, and those that do not reach
    /// that far, are removed.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn load_runs(
        &self,
        tenant: u32,
        trusted: usize,
        after: u64,
        now_us: i64,
    ) -> Result<u64, EngineError> {
        let files = self.files()?;
        let probe = probe(&self.hasher);
        let found = list(&files.directory, tenant, probe);
        let reaches = |runs: &[Arc<Run>]| {
            let first = runs.first().is_some_and(|run| run.meta.from <= after);
            first && runs.last().is_some_and(|run| run.meta.to >= after)
        };
        let mut opened = Vec::new();
        for (path, _) in found.iter().take(trusted) {
            let Ok(run) = Run::open(path, probe) else { break };
            opened.push(Arc::new(run));
        }
        let loaded = loop {
            if !reaches(&opened) {
                opened.clear();
                break None;
            }
            match Loaded::read(&opened, self.hot_since(files, now_us)) {
                Ok(loaded) => break Some(loaded),
                Err(bad) => opened.truncate(bad),
            }
        };
        found[opened.len()..].iter().for_each(|(path, _)| remove(path));
        let Some(loaded) = loaded else { return Ok(after) };
        let mut state = self.state.lock();
        let tenant = state.tenant(tenant)?;
        tenant.identities = loaded.hot;
        tenant.history.cold = Arc::new(tenant.history.cold.with(loaded.cold));
        tenant.history.stored = opened;
        Ok(tenant.history.saved_up_to())
    }
}

pub fn filtered(run: &Arc<Run>) -> Result<Filtered, EngineError> {
    let filters = run.filters().inspect_err(|_| remove(&run.path))?;
    Ok(Filtered {
        run: Arc::clone(run),
        filters,
    })
}

/// What runs hold, for an engine that begins.
struct Loaded {
    hot: IdentityTable,
    cold: Vec<Arc<Filtered>>,
}

impl Loaded {
    /// The number of the first damaged run, if one is.
    fn read(stored: &[Arc<Run>], hot_since: Day) -> Result<Self, usize> {
        let mut cold = Vec::new();
        for (number, run) in stored.iter().enumerate() {
            if run.meta.least_day < hot_since {
                cold.push(Arc::new(filtered(run).map_err(|_| number)?));
            }
        }
        let warm = stored
            .iter()
            .enumerate()
            .filter(|(_, run)| run.meta.last_day >= hot_since);
        let (numbers, runs): (Vec<usize>, Vec<&Run>) = warm.map(|(number, run)| (number, &**run)).unzip();
        let count = runs.iter().map(|run| run.meta.count).sum::<u64>();
        let slots = merged(&runs).filter(|slot| slot.as_ref().map_or(true, |slot| slot.day() >= hot_since));
        let hot = IdentityTable::load(usize::try_from(count).unwrap_or_default(), slots);
        let hot = hot.map_err(|error| {
            let named = runs
                .iter()
                .position(|run| error.message.contains(&*run.path.to_string_lossy()));
            named.map_or(0, |at| numbers[at])
        })?;
        Ok(Self { hot, cold })
    }
}

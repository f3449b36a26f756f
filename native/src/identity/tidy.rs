//! What an engine does with runs: save, move out, merge, load, forget.
//!
//! Runs follow one another: with those before it, each has all identities of
//! a tenant's segments up to a position. So a start needs to read only the
//! segments after the last run. A run is placed when all it has is durable.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::load::filtered;
use super::run::{Probe, Run};
use super::store::{Filtered, path_of, remove, unfinished};
use super::write::{Cover, Writer, merged};
use super::{Cold, Day};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::Event;
use crate::hash::Hasher;

/// Runs of about one size that make one of the next size.
const FAN_IN: usize = 4;
/// Slots of the smallest size.
const SMALL: u64 = 1 << 16;
/// Of a merged run: what is too old goes when all of it is.
const SPAN_DAYS: u16 = 8;
/// More than what a start may still look for.
const GRACE_DAYS: u16 = 3;

/// Where runs are, and what goes there.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// Of this engine alone.
    pub directory: PathBuf,
    /// How long identities stay in memory.
    pub hot_us: i64,
    /// Wait until files are on the disk; tests need not.
    pub sync: bool,
}

/// A tenant's runs.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Oldest first.
    pub stored: Vec<Arc<Run>>,
    /// Those with what memory lacks.
    pub cold: Arc<Cold>,
    /// A run was begun and neither placed nor given up: what memory takes for
    /// saved is not.
    begun: bool,
}

impl History {
    pub(super) fn saved_up_to(&self) -> u64 {
        self.stored.last().map_or(0, |run| run.meta.to)
    }
}

/// A run to be placed when all it has is durable.
#[derive(Debug)]
pub struct DraftRun {
    writer: Writer,
    tenant: u32,
    from: u64,
    to: u64,
    /// All it has is durable when the tenant stands here.
    marker: u64,
}

pub(super) fn probe(hasher: &Hasher) -> Probe {
    let event = Event::default();
    (hasher.identity(&event), hasher.content(&event))
}

impl Engine {
    pub(super) fn files(&self) -> Result<&RunFiles, EngineError> {
        self.settings
            .run_files
            .as_ref()
            .ok_or_else(|| EngineError::invalid_definition("this engine has no directory for runs"))
    }

    /// Whole days, as identities know no more.
    pub(super) fn hot_since(&self, files: &RunFiles, now_us: i64) -> Day {
        Day::of(now_us.saturating_sub(files.hot_us)).max(self.oldest_identity(now_us))
    }

    /// Writes what no run has yet, if that is at least so many; the run is to
    /// be placed or given up.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`; `DISK`, then nothing has changed.
    pub fn save_identities(&self, id: u32, least: usize) -> Result<Option<DraftRun>, EngineError> {
        let files = self.files()?;
        let (from, to) = {
            let mut state = self.state.lock();
            let tenant = state.tenant(id)?;
            let (from, to) = (tenant.history.saved_up_to(), tenant.head);
            if tenant.history.begun || to <= from || tenant.identities.unsaved() < least.max(1) {
                return Ok(None);
            }
            tenant.history.begun = true;
            (from, to)
        };
        let path = unfinished(&path_of(&files.directory, id, from, to));
        let written = Writer::create(path, files.sync).and_then(|mut writer| {
            for shard in 0.. {
                // Others may go on between shards.
                let unsaved = self.state.lock().tenant(id)?.identities.save_shard(shard);
                let Some(unsaved) = unsaved else { break };
                for slot in unsaved {
                    writer.push(slot)?;
                }
            }
            writer.end_slots()?;
            Ok(writer)
        });
        let marker = {
            let mut state = self.state.lock();
            let tenant = state.tenant(id)?;
            // An event admitted by now gets no later position.
            tenant.head + tenant.pending
        };
        match written {
            Ok(writer) => Ok(Some(DraftRun {
                writer,
                tenant: id,
                from,
                to,
                marker,
            })),
            Err(error) => {
                self.forget_saving(id)?;
                Err(error)
            }
        }
    }

    /// Gives a run its place; false while not all it has is durable.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`; `DISK`, then the run is given up.
    pub fn place_run(&self, draft: &mut DraftRun) -> Result<bool, EngineError> {
        let files = self.files()?;
        let cover = {
            let mut state = self.state.lock();
            let tenant = state.tenant(draft.tenant)?;
            if tenant.head < draft.marker {
                return Ok(false);
            }
            Cover {
                tenant: draft.tenant,
                from: draft.from,
                to: draft.to,
                position: tenant.head,
                digest: tenant.digest,
            }
        };
        let path = path_of(&files.directory, draft.tenant, draft.from, draft.to);
        let placed = draft.writer.place(&path, cover, probe(&self.hasher));
        let run = match placed {
            Ok(run) => run,
            Err(error) => {
                remove(&path);
                self.forget_saving(draft.tenant)?;
                return Err(error);
            }
        };
        let mut state = self.state.lock();
        let history = &mut state.tenant(draft.tenant)?.history;
        history.stored.push(Arc::new(run));
        history.begun = false;
        Ok(true)
    }

    /// Gives a run up that was begun.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn give_up_run(&self, draft: &DraftRun) -> Result<(), EngineError> {
        self.forget_saving(draft.tenant)
    }

    fn forget_saving(&self, id: u32) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let tenant = state.tenant(id)?;
        // Runs may then have an identity twice, which does no harm.
        tenant.identities.unsave();
        tenant.history.begun = false;
        Ok(())
    }

    /// Lets memory go of what runs have and is older than the hot span;
    /// returns how many identities.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`, `DAMAGED_RUN`.
    pub fn move_out_identities(&self, id: u32, now_us: i64) -> Result<usize, EngineError> {
        let hot_since = self.hot_since(self.files()?, now_us);
        let (stored, cold) = {
            let mut state = self.state.lock();
            let history = &state.tenant(id)?.history;
            if history.begun {
                return Ok(0);
            }
            (history.stored.clone(), Arc::clone(&history.cold))
        };
        let known = |run: &Arc<Run>| cold.runs.iter().find(|one| Arc::ptr_eq(&one.run, run));
        let mut runs = Vec::new();
        for run in stored.iter().filter(|run| run.meta.least_day < hot_since) {
            runs.push(match known(run) {
                Some(filtered) => Arc::clone(filtered),
                None => Arc::new(filtered(run)?),
            });
        }
        if runs.len() != cold.runs.len() {
            self.state.lock().tenant(id)?.history.cold = Arc::new(cold.with(runs));
        }
        // Only now: an identity is in memory or in a run that is looked into.
        let mut moved = 0;
        let mut state = self.state.lock();
        for shard in 0.. {
            let Some(count) = state.tenant(id)?.identities.evict_shard(shard, hot_since) else {
                break;
            };
            moved += count;
            MutexGuard::bump(&mut state);
        }
        Ok(moved)
    }

    /// Makes one run of several of about one size; false if there are none.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`, `DISK`, `DAMAGED_RUN`.
    pub fn merge_runs(&self, id: u32, now_us: i64) -> Result<bool, EngineError> {
        let files = self.files()?;
        let stored = self.state.lock().tenant(id)?.history.stored.clone();
        let Some(crowd) = crowd(&stored) else {
            return Ok(false);
        };
        let (first, last) = (&crowd[0].meta, &crowd[crowd.len() - 1].meta);
        let cover = Cover {
            tenant: id,
            from: first.from,
            to: last.to,
            // Whatever is durable by a later position.
            position: last.position,
            digest: last.digest,
        };
        let path = path_of(&files.directory, id, cover.from, cover.to);
        let mut writer = Writer::create(unfinished(&path), files.sync)?;
        let oldest = self.oldest_identity(now_us);
        let runs: Vec<&Run> = crowd.iter().map(AsRef::as_ref).collect();
        for slot in merged(&runs) {
            let slot = slot.inspect_err(|_| crowd.iter().for_each(|run| remove(&run.path)))?;
            if slot.day() >= oldest {
                writer.push(slot)?;
            }
        }
        writer.end_slots()?;
        let run = Arc::new(writer.place(&path, cover, probe(&self.hasher))?);
        self.replace(id, crowd, run, std::mem::take(&mut writer.filters))?;
        Ok(true)
    }

    fn replace(
        &self,
        id: u32,
        crowd: &[Arc<Run>],
        run: Arc<Run>,
        filters: Vec<super::filter::Filter>,
    ) -> Result<(), EngineError> {
        let merged_away = |run: &Arc<Run>| crowd.iter().any(|one| Arc::ptr_eq(one, run));
        {
            let mut state = self.state.lock();
            let history = &mut state.tenant(id)?.history;
            if let Some(at) = history.stored.iter().position(merged_away) {
                history.stored.insert(at, Arc::clone(&run));
            }
            history.stored.retain(|run| !merged_away(run));
            let before = history.cold.runs.len();
            let mut runs = history.cold.runs.clone();
            runs.retain(|one| !merged_away(&one.run));
            if runs.len() < before {
                runs.push(Arc::new(Filtered { run, filters }));
                history.cold = Arc::new(history.cold.with(runs));
            }
        }
        for run in crowd {
            remove(&run.path);
        }
        Ok(())
    }

    /// Removes runs of which no acceptable event can be, oldest first.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn expire_runs(&self, id: u32, now_us: i64) -> Result<usize, EngineError> {
        let oldest = self.oldest_identity(now_us).before(GRACE_DAYS);
        let mut state = self.state.lock();
        let history = &mut state.tenant(id)?.history;
        // The last one says up to where identities are saved.
        let spare = history.stored.len().saturating_sub(1);
        let expired = history.stored.iter().take(spare);
        let count = expired.take_while(|run| run.meta.last_day < oldest).count();
        let gone: Vec<_> = history.stored.drain(..count).collect();
        if !gone.is_empty() {
            let is_gone = |one: &Arc<Filtered>| gone.iter().any(|run| Arc::ptr_eq(run, &one.run));
            let kept = history.cold.runs.iter().filter(|one| !is_gone(one)).cloned();
            history.cold = Arc::new(history.cold.with(kept.collect()));
        }
        drop(state);
        for run in &gone {
            remove(&run.path);
        }
        Ok(gone.len())
    }
}

/// Neighbours of about one size, as many as make one of the next.
fn crowd(stored: &[Arc<Run>]) -> Option<&[Arc<Run>]> {
    let level = |run: &Arc<Run>| (run.meta.count / SMALL).max(1).ilog(FAN_IN as u64);
    let highest = stored.iter().map(level).max()?;
    for limit in 0..=highest {
        let mut begin = 0;
        for end in 1..=stored.len() {
            let run = &stored[end - 1];
            if level(run) > limit {
                begin = end;
            }
            let first_day = |begin: usize| stored[begin..end].iter().map(|run| run.meta.least_day).min();
            while first_day(begin).is_some_and(|day| day < run.meta.last_day.before(SPAN_DAYS)) {
                begin += 1;
            }
            if end - begin >= FAN_IN {
                return Some(&stored[begin..end]);
            }
        }
    }
    None
}

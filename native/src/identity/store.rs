//! Which files belong together, and those that are looked into.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::filter::Filter;
use super::run::{Meta, Probe, Run};
use super::write::UNFINISHED;
use super::{Day, Slot};
use crate::error::EngineError;
use crate::hash::{Content, Identity};
use crate::segment::Digest;

const EXTENSION: &str = "run";

/// What a file of identities must agree on with the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTag {
    /// With those before it, it has all identities after `from` up to here.
    pub to: u64,
    /// A position by which all it has was durable.
    pub position: u64,
    /// Of the segment at that position.
    pub digest: Digest,
}

/// A tenant's file for a span of positions.
pub fn path_of(directory: &Path, tenant: u32, from: u64, to: u64) -> PathBuf {
    directory.join(format!("{tenant:08x}-{from:016x}-{to:016x}.{EXTENSION}"))
}

/// The same before it is whole.
pub fn unfinished(path: &Path) -> PathBuf {
    path.with_extension(UNFINISHED)
}

fn tenant_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    u32::from_str_radix(name.get(..8)?, 16).ok()
}

/// A tenant's files that follow one another, oldest first. Removes whatever
/// else it has: what a crash left unfinished, what was merged since, what is
/// damaged or made with another key, and all after a gap.
pub fn list(directory: &Path, tenant: u32, probe: Probe) -> Vec<(PathBuf, Meta)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let own: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| tenant_of(path) == Some(tenant))
        .collect();
    let mut found: Vec<(PathBuf, Meta)> = own
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
        .filter_map(|path| Some((path.clone(), Run::meta(path, probe).ok()?)))
        .filter(|(path, meta)| {
            meta.tenant == tenant && *path == path_of(directory, tenant, meta.from, meta.to)
        })
        .collect();
    // Of those that begin together, the longest was merged from the others.
    found.sort_unstable_by_key(|(_, meta)| (meta.from, std::cmp::Reverse(meta.to)));
    let mut end = None;
    found.retain(|(_, meta)| {
        let follows = end.is_none_or(|end| meta.from == end) && meta.from < meta.to;
        if follows {
            end = Some(meta.to);
        }
        follows
    });
    let kept: HashSet<&PathBuf> = found.iter().map(|(path, _)| path).collect();
    own.iter()
        .filter(|path| !kept.contains(path))
        .for_each(|path| remove(path));
    found
}

/// Removes a file; if that fails it is refused or removed at the next start.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

/// A run and its filters.
#[derive(Debug)]
pub struct Filtered {
    pub run: Arc<Run>,
    pub filters: Vec<Filter>,
}

impl Filtered {
    #[inline]
    fn may_hold(&self, identity: Identity) -> bool {
        let section = self.run.section(identity);
        section.is_some_and(|section| self.filters[section].may_hold(identity.low))
    }
}

/// The runs that have identities which memory does not.
#[derive(Debug, Default)]
pub struct Cold {
    pub(super) runs: Vec<Arc<Filtered>>,
    counts: Arc<Counts>,
}

/// Over a tenant's life.
#[derive(Debug, Default)]
pub struct Counts {
    pub lookups: AtomicU64,
    pub mistaken: AtomicU64,
}

impl Cold {
    /// Others in the place of these.
    pub(super) fn with(&self, runs: Vec<Arc<Filtered>>) -> Self {
        Self {
            runs,
            counts: Arc::clone(&self.counts),
        }
    }

    /// True if no run need be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// False if certainly no run has it. Reads no disk.
    #[inline]
    #[must_use]
    pub fn may_hold(&self, identity: Identity) -> bool {
        self.runs.iter().any(|run| run.may_hold(identity))
    }

    /// The content that an identity was first seen with, unless that was so
    /// long ago that it is forgotten. Reads the disk if a filter says so.
    ///
    /// # Errors
    /// `DAMAGED_RUN`; the file is gone then, so that the next start makes up
    /// for it from segments.
    pub fn find(&self, identity: Identity, oldest: Day) -> Result<Option<Content>, EngineError> {
        for filtered in self.runs.iter().filter(|run| run.may_hold(identity)) {
            self.counts.lookups.fetch_add(1, Ordering::Relaxed);
            let found: Option<Slot> = filtered
                .run
                .find(identity)
                .inspect_err(|_| remove(&filtered.run.path))?;
            match found {
                Some(slot) if slot.day() >= oldest => return Ok(Some(slot.content())),
                Some(_) => {}
                None => drop(self.counts.mistaken.fetch_add(1, Ordering::Relaxed)),
            }
        }
        Ok(None)
    }

    /// Identities, memory for their filters and fences, look-ups, and those
    /// in vain.
    #[must_use]
    pub fn figures(&self) -> [u64; 4] {
        let count = self.runs.iter().map(|one| one.run.meta.count).sum();
        let bytes: usize = self
            .runs
            .iter()
            .map(|one| one.run.bytes() + one.filters.iter().map(Filter::bytes).sum::<usize>())
            .sum();
        let [lookups, mistaken] =
            [&self.counts.lookups, &self.counts.mistaken].map(|count| count.load(Ordering::Relaxed));
        [count, bytes as u64, lookups, mistaken]
    }
}

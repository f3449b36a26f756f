//! Makes runs: under another name first, and whole when they get their own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::filter::Filter;
use super::run::{BLOCK, Fence, Meta, Probe, Run, SECTION_BLOCKS, encode_fence, encode_slot};
use super::{Day, Slot};
use crate::error::{EngineError, Reason};
use crate::hash::Identity;
use crate::segment::Digest;

/// Of a file that is being written.
pub const UNFINISHED: &str = "new";
const WRITE_BYTES: usize = 1 << 20;

/// A run in the making: its file is gone when this is, unless it was placed.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    block_at: usize,
    first: Identity,
    fences: Vec<Fence>,
    keys: Vec<u64>,
    pub filters: Vec<Filter>,
    count: usize,
    days: (Day, Day),
    sync: bool,
    placed: bool,
}

/// What `Meta` says that the slots do not.
#[derive(Clone, Copy, Debug)]
pub struct Cover {
    pub tenant: u32,
    pub from: u64,
    pub to: u64,
    pub position: u64,
    pub digest: Digest,
}

impl Writer {
    /// Begins a file in a directory; `sync`: placing it waits for the disk.
    ///
    /// # Errors
    /// `DISK`.
    pub fn create(path: PathBuf, sync: bool) -> Result<Self, EngineError> {
        let file = File::create(&path).map_err(|error| disk(&path, &error))?;
        Ok(Self {
            path,
            file,
            buffer: Vec::new(),
            block_at: 0,
            first: Identity::default(),
            fences: Vec::new(),
            keys: Vec::new(),
            filters: Vec::new(),
            count: 0,
            days: (Day(u16::MAX), Day(0)),
            sync,
            placed: false,
        })
    }

    /// Adds the next slot in order.
    ///
    /// # Errors
    /// `DISK`.
    pub fn push(&mut self, slot: Slot) -> Result<(), EngineError> {
        if self.count.is_multiple_of(BLOCK) {
            self.end_block()?;
            self.first = slot.identity;
        }
        encode_slot(&mut self.buffer, slot);
        self.keys.push(slot.identity.low);
        self.days = (self.days.0.min(slot.day()), self.days.1.max(slot.day()));
        self.count += 1;
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), EngineError> {
        if self.buffer.len() > self.block_at {
            let checksum = crc32fast::hash(&self.buffer[self.block_at..]);
            self.fences.push(Fence {
                identity: self.first,
                checksum,
            });
            if self.fences.len().is_multiple_of(SECTION_BLOCKS) {
                self.end_section();
            }
        }
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        self.block_at = self.buffer.len();
        Ok(())
    }

    fn end_section(&mut self) {
        if !self.keys.is_empty() {
            self.filters.push(Filter::build(&self.keys));
            self.keys.clear();
        }
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.file
            .write_all(&self.buffer)
            .map_err(|error| disk(&self.path, &error))?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the slots: what takes long is done then, but for the trailer.
    ///
    /// # Errors
    /// `DISK`.
    pub fn end_slots(&mut self) -> Result<(), EngineError> {
        self.end_block()?;
        self.end_section();
        self.flush()?;
        if self.sync {
            self.file.sync_data().map_err(|error| disk(&self.path, &error))?;
        }
        Ok(())
    }

    /// Writes the rest and gives the file its name.
    ///
    /// # Errors
    /// `DISK`, `DAMAGED_RUN`.
    pub fn place(&mut self, path: &Path, cover: Cover, probe: Probe) -> Result<Run, EngineError> {
        let mut fences = Vec::new();
        self.fences
            .iter()
            .for_each(|fence| encode_fence(&mut fences, *fence));
        let mut filters = Vec::new();
        for filter in &self.filters {
            let mut one = Vec::new();
            filter.encode(&mut one);
            // A section's filter has little more than a megabyte.
            filters.extend_from_slice(&u32::try_from(one.len()).unwrap_or(u32::MAX).to_le_bytes());
            filters.extend_from_slice(&crc32fast::hash(&one).to_le_bytes());
            filters.extend_from_slice(&one);
        }
        let meta = Meta {
            tenant: cover.tenant,
            from: cover.from,
            to: cover.to,
            position: cover.position,
            digest: cover.digest,
            least_day: self.days.0,
            last_day: self.days.1,
            count: self.count as u64,
            filter_bytes: filters.len() as u64,
            fences_checksum: crc32fast::hash(&fences),
        };
        self.buffer.extend_from_slice(&fences);
        self.buffer.extend_from_slice(&filters);
        self.buffer.extend_from_slice(&meta.encode(probe));
        self.flush()?;
        if self.sync {
            self.file.sync_all().map_err(|error| disk(&self.path, &error))?;
        }
        fs::rename(&self.path, path).map_err(|error| disk(path, &error))?;
        self.placed = true;
        if self.sync
            && let Some(directory) = path.parent()
        {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| disk(directory, &error))?;
        }
        Run::open(path, probe)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.placed {
            // If it stays, the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The slots of several runs in order; of an identity that several have, the
/// one of the last day, as the others were forgotten when it came again.
pub fn merged<'r>(runs: &'r [&Run]) -> impl Iterator<Item = Result<Slot, EngineError>> + 'r {
    let mut sources: Vec<_> = runs.iter().map(|run| run.slots()).collect();
    let mut heads = BinaryHeap::new();
    let mut failed = None;
    let mut advance = move |heads: &mut BinaryHeap<_>, source: usize| match sources[source].next() {
        Some(Ok(slot)) => {
            heads.push(Reverse((slot.identity, Reverse(slot.day()), slot.tag, source)));
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    for source in 0..runs.len() {
        failed = failed.or(advance(&mut heads, source));
    }
    let mut last = None;
    std::iter::from_fn(move || {
        loop {
            if let Some(error) = failed.take() {
                heads.clear();
                return Some(Err(error));
            }
            let Reverse((identity, _, tag, source)) = heads.pop()?;
            failed = advance(&mut heads, source);
            if last != Some(identity) {
                last = Some(identity);
                return Some(Ok(Slot { identity, tag }));
            }
        }
    })
}

pub fn disk(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::new(Reason::Disk, format!("{}: {error}", path.display()))
}

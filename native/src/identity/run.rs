//! A sorted file of identities that are durable in segments.
//!
//! Blocks of 256 slots of 24 bytes, in order; one fence per block: its first
//! identity and its CRC-32; one filter per section of 2,048 blocks, with a
//! CRC-32 each; a trailer that says whose they are and what they cover. All
//! little-endian. The trailer is written last: a file that ends otherwise is
//! none.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::filter::Filter;
use super::{Day, LAST_DAY, Slot};
use crate::error::{EngineError, Reason};
use crate::hash::{Content, Identity};
use crate::segment::Digest;

pub const SLOT_BYTES: usize = 24;
pub const BLOCK: usize = 256;
pub const SECTION_BLOCKS: usize = 2048;
pub const FENCE_BYTES: usize = 20;
/// Before each filter: its length and its CRC-32.
pub const FILTER_HEAD: usize = 8;
pub const TRAILER_BYTES: usize = 144;
const MAGIC: &[u8; 8] = b"identit1";
/// Blocks that are read at a time from front to back.
const READ_BLOCKS: usize = 64;

/// Which hashes a file's identities were made with: key and function.
pub type Probe = (Identity, Content);

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub tenant: u32,
    /// With the runs before it, it has all identities of segments up to `to`.
    pub from: u64,
    pub to: u64,
    /// All it has is durable in segments up to this one, whose digest is:
    pub position: u64,
    pub digest: Digest,
    pub least_day: Day,
    pub last_day: Day,
    pub count: u64,
    pub filter_bytes: u64,
    pub fences_checksum: u32,
}

impl Meta {
    pub fn blocks(&self) -> u64 {
        self.count.div_ceil(BLOCK as u64)
    }

    fn fences_at(&self) -> u64 {
        self.count * SLOT_BYTES as u64
    }

    fn filters_at(&self) -> u64 {
        self.fences_at() + self.blocks() * FENCE_BYTES as u64
    }

    fn file_bytes(&self) -> u64 {
        self.filters_at() + self.filter_bytes + TRAILER_BYTES as u64
    }

    pub fn encode(&self, probe: Probe) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let numbers = [
            probe.0.high,
            probe.0.low,
            probe.1.bits(),
            u64::from(self.tenant),
            self.from,
            self.to,
            self.position,
            self.count,
            self.filter_bytes,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.digest);
        for day in [self.least_day, self.last_day] {
            out.extend_from_slice(&u32::from(day.0).to_le_bytes());
        }
        out.extend_from_slice(&self.fences_checksum.to_le_bytes());
        out.resize(TRAILER_BYTES - 4, 0);
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// None if it is no trailer, or one of another database.
    fn decode(bytes: &[u8], probe: Probe) -> Option<Self> {
        let (said, checksum) = bytes.split_last_chunk()?;
        if crc32fast::hash(said).to_le_bytes() != *checksum || bytes.len() != TRAILER_BYTES {
            return None;
        }
        let mut rest = said.strip_prefix(MAGIC)?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        let found = (
            Identity {
                high: number()?,
                low: number()?,
            },
            Content::new(number()?),
        );
        let [tenant, from, to, position, count, filter_bytes] =
            [number()?, number()?, number()?, number()?, number()?, number()?];
        let (digest, rest) = rest.split_first_chunk()?;
        let (least, rest) = rest.split_first_chunk()?;
        let (greatest, rest) = rest.split_first_chunk()?;
        let (fences_checksum, _) = rest.split_first_chunk()?;
        let day = |bytes| Day(u16::try_from(u32::from_le_bytes(bytes)).unwrap_or(LAST_DAY));
        let meta = Self {
            tenant: u32::try_from(tenant).ok()?,
            from,
            to,
            position,
            digest: *digest,
            least_day: day(*least),
            last_day: day(*greatest),
            count,
            filter_bytes,
            fences_checksum: u32::from_le_bytes(*fences_checksum),
        };
        (found == probe).then_some(meta)
    }
}

/// The first identity of a block, and the block's CRC-32.
#[derive(Clone, Copy, Debug)]
pub struct Fence {
    pub identity: Identity,
    pub checksum: u32,
}

/// An open file. Its fences are in memory, its filters are not.
#[derive(Debug)]
pub struct Run {
    pub meta: Meta,
    pub path: PathBuf,
    file: File,
    fences: Vec<Fence>,
}

impl Run {
    /// Reads what a file says of itself.
    ///
    /// # Errors
    /// `DAMAGED_RUN` unless it is a whole run made with these hashes.
    pub fn meta(path: &Path, probe: Probe) -> Result<Meta, EngineError> {
        let file = File::open(path).map_err(|error| damaged(path, &error))?;
        let bytes = file.metadata().map_err(|error| damaged(path, &error))?.len();
        let at = bytes
            .checked_sub(TRAILER_BYTES as u64)
            .ok_or_else(|| damaged(path, &"it is too short"))?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, at)
            .map_err(|error| damaged(path, &error))?;
        let meta = Meta::decode(&trailer, probe)
            .filter(|meta| meta.count < 1 << 40 && meta.filter_bytes < 1 << 40 && meta.file_bytes() == bytes);
        meta.ok_or_else(|| damaged(path, &"its end is not that of a run of this database"))
    }

    /// Opens a file.
    ///
    /// # Errors
    /// `DAMAGED_RUN`.
    pub fn open(path: &Path, probe: Probe) -> Result<Self, EngineError> {
        let mut run = Self {
            meta: Self::meta(path, probe)?,
            path: path.to_owned(),
            file: File::open(path).map_err(|error| damaged(path, &error))?,
            fences: Vec::new(),
        };
        // Less than 2^40 slots.
        let bytes = run.read(run.meta.fences_at(), run.meta.filters_at() - run.meta.fences_at())?;
        if crc32fast::hash(&bytes) != run.meta.fences_checksum {
            return Err(run.damaged(&"the checksum of its fences differs"));
        }
        run.fences = bytes.chunks_exact(FENCE_BYTES).map(decode_fence).collect();
        Ok(run)
    }

    fn damaged(&self, what: &dyn ToString) -> EngineError {
        damaged(&self.path, what)
    }

    fn read(&self, at: u64, bytes: u64) -> Result<Vec<u8>, EngineError> {
        let mut read = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut read, at)
            .map_err(|error| self.damaged(&error))?;
        Ok(read)
    }

    /// Reads the filters, one for each section.
    ///
    /// # Errors
    /// `DAMAGED_RUN`.
    pub fn filters(&self) -> Result<Vec<Filter>, EngineError> {
        let mut at = self.meta.filters_at();
        let end = at + self.meta.filter_bytes;
        let mut filters = Vec::new();
        while at < end {
            let head = self.read(at, FILTER_HEAD as u64)?;
            let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (length, checksum) = (number(0), number(4));
            at += FILTER_HEAD as u64;
            if at + u64::from(length) > end {
                return Err(self.damaged(&"a filter is longer than the file"));
            }
            let bytes = self.read(at, length.into())?;
            at += u64::from(length);
            let filter = Some(bytes).filter(|bytes| crc32fast::hash(bytes) == checksum);
            let filter = filter.and_then(|bytes| Filter::decode(&bytes));
            filters.push(filter.ok_or_else(|| self.damaged(&"the checksum of a filter differs"))?);
        }
        if filters.len() != self.fences.len().div_ceil(SECTION_BLOCKS) {
            return Err(self.damaged(&"filters are missing"));
        }
        Ok(filters)
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.fences.capacity() * size_of::<Fence>()
    }

    /// The section that an identity would be in.
    #[inline]
    pub fn section(&self, identity: Identity) -> Option<usize> {
        let sections = self.fences.len().div_ceil(SECTION_BLOCKS);
        let first = |section: usize| self.fences[section * SECTION_BLOCKS].identity;
        // Hashes are even: the guess mostly is right, or the next one is.
        let guess = u128::from(identity.high) * sections as u128;
        let mut section = usize::try_from(guess >> u64::BITS).unwrap_or_default();
        while section + 1 < sections && first(section + 1) <= identity {
            section += 1;
        }
        while section < sections && first(section) > identity {
            section = section.checked_sub(1)?;
        }
        (section < sections).then_some(section)
    }

    /// Looks an identity up.
    ///
    /// # Errors
    /// `DAMAGED_RUN`.
    pub fn find(&self, identity: Identity) -> Result<Option<Slot>, EngineError> {
        let after = self.fences.partition_point(|fence| fence.identity <= identity);
        let Some(block) = after.checked_sub(1) else {
            return Ok(None);
        };
        let slots = self.blocks(block, 1)?;
        let found = slots.binary_search_by_key(&identity, |slot| slot.identity);
        Ok(found.ok().map(|at| slots[at]))
    }

    /// Reads blocks, checking each.
    fn blocks(&self, first: usize, many: usize) -> Result<Vec<Slot>, EngineError> {
        let begin = first * BLOCK;
        let end = (begin + many * BLOCK).min(usize::try_from(self.meta.count).unwrap_or(usize::MAX));
        let bytes = self.read((begin * SLOT_BYTES) as u64, ((end - begin) * SLOT_BYTES) as u64)?;
        let fences = self.fences[first..].iter();
        for (block, fence) in bytes.chunks(BLOCK * SLOT_BYTES).zip(fences) {
            if crc32fast::hash(block) != fence.checksum {
                return Err(self.damaged(&"the checksum of a block differs"));
            }
        }
        Ok(bytes.chunks_exact(SLOT_BYTES).map(decode_slot).collect())
    }

    /// All slots in order.
    pub fn slots(&self) -> impl Iterator<Item = Result<Slot, EngineError>> {
        let mut block = 0;
        let mut read = Vec::new().into_iter();
        std::iter::from_fn(move || {
            if let Some(slot) = read.next() {
                return Some(Ok(slot));
            }
            if block >= self.fences.len() {
                return None;
            }
            match self.blocks(block, READ_BLOCKS) {
                Ok(slots) => read = slots.into_iter(),
                Err(error) => {
                    block = self.fences.len();
                    return Some(Err(error));
                }
            }
            block += READ_BLOCKS;
            read.next().map(Ok)
        })
    }
}

pub fn damaged(path: &Path, what: &dyn ToString) -> EngineError {
    let message = format!("run {}: {}", path.display(), what.to_string());
    EngineError::new(Reason::DamagedRun, message)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn decode_slot(bytes: &[u8]) -> Slot {
    Slot {
        identity: Identity {
            high: word(bytes, 0),
            low: word(bytes, 8),
        },
        tag: word(bytes, 16),
    }
}

pub fn encode_slot(out: &mut Vec<u8>, slot: Slot) {
    for word in [slot.identity.high, slot.identity.low, slot.unsaved().tag] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn decode_fence(bytes: &[u8]) -> Fence {
    Fence {
        identity: Identity {
            high: word(bytes, 0),
            low: word(bytes, 8),
        },
        checksum: bytes[16..]
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes)),
    }
}

pub fn encode_fence(out: &mut Vec<u8>, fence: Fence) {
    out.extend_from_slice(&fence.identity.high.to_le_bytes());
    out.extend_from_slice(&fence.identity.low.to_le_bytes());
    out.extend_from_slice(&fence.checksum.to_le_bytes());
}

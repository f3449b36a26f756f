//! Blocks: the partials of one meter and one UTC day as bytes for the database.
//!
//! A payload is a header of 40 bytes and a body, compressed when that is smaller. All integers are
//! little-endian:
//!
//! ```text
//!  0  magic "AMWB", version u8, codec u8 (0: as is, 1: lz4), aggregation u8, zero u8
//!  8  dimensions u32, tenant u32, meter u32, day i32, rows u32, length of the raw body u32
//! 32  first 8 bytes of SHA-256 over bytes 0 to 32 and the body as stored
//! ```
//!
//! The raw body is a list of sections, one per group, in order of (subject, dimensions): length of
//! the key, the key, number of rows, length of the rows, the rows. A row is the distance to the
//! previous row's minute (to the day's first minute) and a partial. Whoever reads can pass over
//! the groups it does not want, and whoever merges can copy those that are in one block only.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::codec::{Reader, corrupt, partial};
use super::group::parts;
use super::partial::Partial;
use crate::error::EngineError;
use crate::meter::{Aggregation, MeterSpec};

const MAGIC: [u8; 4] = *b"AMWB";
const VERSION: u8 = 1;
/// Codec: the body as it is.
pub const RAW: u8 = 0;
/// Codec: an lz4 block.
pub const LZ4: u8 = 1;
/// Of UTC.
pub const MINUTES_PER_DAY: i32 = 1440;
/// No lz4 byte yields more than 255.
const LZ4_RATIO: usize = 255;

const AGGREGATIONS: [Aggregation; 7] = [
    Aggregation::Count,
    Aggregation::Sum,
    Aggregation::Min,
    Aggregation::Max,
    Aggregation::Avg,
    Aggregation::UniqueCount,
    Aggregation::Latest,
];

/// A row of the blocks table. Subjects in it lie between `subject_min` and `subject_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Owner of the usage.
    pub tenant: u32,
    /// Revision of the meter.
    pub meter: u32,
    /// Days since the epoch.
    pub day: i32,
    /// Least subject.
    pub subject_min: Vec<u8>,
    /// Greatest subject.
    pub subject_max: Vec<u8>,
    /// Partials in it.
    pub row_count: u32,
    /// Header and body.
    pub payload: Vec<u8>,
}

/// What a block says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Owner.
    pub tenant: u32,
    /// Meter.
    pub meter: u32,
    /// Day.
    pub day: i32,
    /// How its rows are to be read.
    pub aggregation: Aggregation,
    /// Parts of a key after the subject.
    pub dimensions: u32,
}

impl Header {
    /// The header of a meter's blocks of a day.
    pub fn of(tenant: u32, spec: &MeterSpec, day: i32) -> Self {
        let dimensions = u32::try_from(spec.dimensions.len()).unwrap_or(u32::MAX);
        Self {
            tenant,
            meter: spec.id,
            day,
            aggregation: spec.aggregation,
            dimensions,
        }
    }

    /// The day's first minute.
    pub fn first_minute(&self) -> i64 {
        i64::from(self.day) * i64::from(MINUTES_PER_DAY)
    }

    /// The payload's first bytes, without the checksum.
    pub fn to_bytes(self, codec: u8, rows: u32, raw_bytes: usize) -> [u8; 32] {
        let aggregation = AGGREGATIONS
            .iter()
            .position(|one| *one == self.aggregation)
            .unwrap_or(0);
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..7].copy_from_slice(&[VERSION, codec, aggregation.to_le_bytes()[0]]);
        let raw_bytes = u32::try_from(raw_bytes).unwrap_or(u32::MAX);
        let day = u32::from_le_bytes(self.day.to_le_bytes());
        let words = [self.dimensions, self.tenant, self.meter, day, rows, raw_bytes];
        for (target, word) in bytes[8..].chunks_exact_mut(4).zip(words) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Day of a minute.
#[must_use]
pub fn day_of(minute: i32) -> i32 {
    minute.div_euclid(MINUTES_PER_DAY)
}

/// A verified block, decompressed.
#[derive(Debug)]
pub struct OpenBlock<'a> {
    /// What it says about itself.
    pub header: Header,
    rows: u32,
    body: Cow<'a, [u8]>,
}

/// One group in a block; its rows are still bytes.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// Key as `meter::push_key_part` makes it.
    pub key: &'a [u8],
    /// Number of rows.
    pub rows: usize,
    /// The rows.
    pub bytes: &'a [u8],
}

impl<'a> OpenBlock<'a> {
    /// Verifies and decompresses a payload.
    ///
    /// # Errors
    /// `CORRUPT`.
    pub fn read(payload: &'a [u8]) -> Result<Self, EngineError> {
        let mut reader = Reader::new(payload);
        let head: [u8; 32] = reader.array()?;
        let checksum: [u8; 8] = reader.array()?;
        let stored = &payload[40..];
        if head[..4] != MAGIC || head[4] != VERSION {
            return Err(corrupt("not one of version 1"));
        }
        if digest(&head, stored) != checksum {
            return Err(corrupt("the checksum differs"));
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let aggregation = AGGREGATIONS
            .get(usize::from(head[6]))
            .ok_or_else(|| corrupt("no such aggregation"))?;
        let header = Header {
            tenant: word(12),
            meter: word(16),
            day: i32::from_le_bytes(word(20).to_le_bytes()),
            aggregation: *aggregation,
            dimensions: word(8),
        };
        Ok(Self {
            header,
            rows: word(24),
            body: decompress(head[5], stored, word(28) as usize)?,
        })
    }

    /// Its groups, in order.
    pub fn sections(&self) -> Result<Vec<Section<'_>>, EngineError> {
        let mut reader = Reader::new(&self.body);
        let mut sections: Vec<Section<'_>> = Vec::new();
        let mut rows = 0_usize;
        while !reader.is_done() {
            let section = section(&mut reader)?;
            let mut key = parts(section.key);
            if key.by_ref().count() != self.header.dimensions as usize + 1 || !key.is_done() {
                return Err(corrupt("a key has not as many parts as the meter"));
            }
            if sections
                .last()
                .is_some_and(|last| parts(last.key).ge(parts(section.key)))
            {
                return Err(corrupt("the groups are out of order"));
            }
            rows += section.rows;
            sections.push(section);
        }
        if rows != self.rows as usize {
            return Err(corrupt("rows are missing"));
        }
        Ok(sections)
    }
}

impl Section<'_> {
    /// Calls `each` with the group's minutes, ascending, and partials.
    pub fn rows(&self, header: &Header, mut each: impl FnMut(i32, Partial)) -> Result<(), EngineError> {
        let mut reader = Reader::new(self.bytes);
        let mut offset = 0;
        for row in 0..self.rows {
            let distance = reader.varint()?;
            if row > 0 && distance == 0 {
                return Err(corrupt("a minute comes twice"));
            }
            let day = u64::from(MINUTES_PER_DAY.unsigned_abs());
            offset = distance
                .checked_add(offset)
                .filter(|offset| *offset < day)
                .ok_or_else(|| corrupt("a minute of another day"))?;
            let minute = header.first_minute() + i64::try_from(offset).unwrap_or(0);
            let minute = i32::try_from(minute).map_err(|_| corrupt("no such minute"))?;
            each(minute, partial(&mut reader, header.aggregation, minute)?);
        }
        if reader.is_done() {
            Ok(())
        } else {
            Err(corrupt("bytes follow the last row"))
        }
    }
}

fn section<'a>(reader: &mut Reader<'a>) -> Result<Section<'a>, EngineError> {
    let length = reader.length()?;
    let key = reader.bytes(length)?;
    let rows = reader.length()?;
    let length = reader.length()?;
    Ok(Section {
        key,
        rows,
        bytes: reader.bytes(length)?,
    })
}

/// Checksum of a payload.
pub fn digest(head: &[u8], stored: &[u8]) -> [u8; 8] {
    let digest = Sha256::new().chain_update(head).chain_update(stored).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}

fn decompress(codec: u8, stored: &[u8], raw_bytes: usize) -> Result<Cow<'_, [u8]>, EngineError> {
    match codec {
        RAW if stored.len() == raw_bytes => Ok(Cow::Borrowed(stored)),
        LZ4 if raw_bytes <= stored.len().saturating_mul(LZ4_RATIO) => {
            let mut raw = vec![0; raw_bytes];
            match lz4_flex::block::decompress_into(stored, &mut raw) {
                Ok(length) if length == raw_bytes => Ok(Cow::Owned(raw)),
                _ => Err(corrupt("it does not decompress")),
            }
        }
        _ => Err(corrupt("its length is wrong")),
    }
}

//! One durable append: compressed, chained, readable by any protobuf tool.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::error::{EngineError, Reason};
use crate::event::Event;
use crate::pack::Row;
use crate::wire::{Reader, Value, put_varint};

/// SHA-256.
pub type Digest = [u8; 32];

/// More than any segment holds: a greater `raw_bytes` is not allocated.
const MAX_RAW_BYTES: usize = 1 << 28;
/// Tag of `RecordUsageRequest.events`.
pub const EVENTS_TAG: u8 = 0x0a;

/// One row of the segments table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What the digest covers besides the payload.
    pub header: Header,
    /// Least event time.
    pub min_time_us: i64,
    /// Greatest event time.
    pub max_time_us: i64,
    /// How the payload is stored: 0: as is; 1: lz4 block; 2: zstd.
    pub codec: u8,
    /// A `RecordUsageRequest`, compressed.
    pub payload: Vec<u8>,
    /// Of the segment before.
    pub previous_digest: Digest,
    /// Of this one.
    pub digest: Digest,
}

/// The part of a segment's row that its digest covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Whose.
    pub tenant: u32,
    /// Its place in the tenant's chain.
    pub position: u64,
    /// Events in it.
    pub event_count: u32,
    /// When it was sealed.
    pub recorded_us: i64,
    /// Length of the payload when decompressed.
    pub raw_bytes: u32,
}

impl Header {
    /// SHA-256 over the previous digest, the header, little-endian, and the
    /// payload, decompressed: how it is stored is no part of history.
    #[must_use]
    pub fn digest(&self, previous: &Digest, raw: &[u8]) -> Digest {
        Sha256::new()
            .chain_update(previous)
            .chain_update(self.tenant.to_le_bytes())
            .chain_update(self.position.to_le_bytes())
            .chain_update(self.event_count.to_le_bytes())
            .chain_update(self.recorded_us.to_le_bytes())
            .chain_update(self.raw_bytes.to_le_bytes())
            .chain_update(raw)
            .finalize()
            .into()
    }
}

impl Segment {
    /// Reads everything again: as `Row::verify`.
    ///
    /// # Errors
    /// `CORRUPT`.
    pub fn verify(&self) -> Result<Digest, EngineError> {
        let digests = self
            .row()
            .verify(&self.previous_digest, self.min_time_us, self.max_time_us)?;
        digests.first().copied().ok_or_else(|| corrupt("no segment"))
    }

    /// As it is stored.
    #[must_use]
    pub fn row(&self) -> Row<'_> {
        Row {
            header: self.header,
            codec: self.codec,
            payload: &self.payload,
            digest: self.digest,
            parts: &[],
        }
    }
}

/// Compresses. What is not as is ends with its CRC-32, little-endian: many
/// compressed texts mean the same bytes, and no change should go unseen.
///
/// # Errors
/// `INVALID_DEFINITION` for an unknown codec.
pub fn compress(codec: u8, raw: &[u8]) -> Result<Vec<u8>, EngineError> {
    let mut stored = match codec {
        0 => return Ok(raw.to_vec()),
        1 => lz4_flex::block::compress(raw),
        2 => zstd::bulk::compress(raw, 1).map_err(|error| corrupt(format!("zstd: {error}")))?,
        _ => return Err(EngineError::invalid_definition(unknown_codec(codec))),
    };
    let checksum = crc32fast::hash(&stored);
    stored.extend_from_slice(&checksum.to_le_bytes());
    Ok(stored)
}

fn check_stored(payload: &[u8]) -> Result<&[u8], EngineError> {
    match payload.split_last_chunk() {
        Some((stored, checksum)) if crc32fast::hash(stored).to_le_bytes() == *checksum => Ok(stored),
        _ => Err(corrupt("the payload's checksum differs")),
    }
}

/// Decompresses; as is, it only borrows.
///
/// # Errors
/// `CORRUPT` if the payload does not yield exactly `raw_bytes` bytes.
pub fn decompress(codec: u8, payload: &[u8], raw_bytes: usize) -> Result<Cow<'_, [u8]>, EngineError> {
    if raw_bytes > MAX_RAW_BYTES {
        return Err(corrupt(format!(
            "{raw_bytes} bytes decompressed are more than {MAX_RAW_BYTES}"
        )));
    }
    let raw = match codec {
        0 => Cow::Borrowed(payload),
        1 => lz4_flex::block::decompress(check_stored(payload)?, raw_bytes)
            .map_err(|error| corrupt(format!("lz4: {error}")))?
            .into(),
        2 => zstd::bulk::decompress(check_stored(payload)?, raw_bytes)
            .map_err(|error| corrupt(format!("zstd: {error}")))?
            .into(),
        _ => return Err(corrupt(unknown_codec(codec))),
    };
    if raw.len() != raw_bytes {
        return Err(corrupt(format!(
            "{} bytes decompressed instead of {raw_bytes}",
            raw.len()
        )));
    }
    Ok(raw)
}

/// The stored events of a decompressed payload, as their bytes.
///
/// # Errors
/// `CORRUPT` if the payload is not a `RecordUsageRequest`.
pub fn event_slices(raw: &[u8]) -> Result<Vec<&[u8]>, EngineError> {
    let mut reader = Reader::new(raw);
    let mut slices = Vec::new();
    loop {
        match reader.field() {
            Ok(Some((1, Value::Bytes(bytes)))) => slices.push(bytes),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(slices),
            Err(error) => return Err(corrupt(format!("{} at byte {}", error.what, error.offset))),
        }
    }
}

/// Reads one stored event; it was checked when it was accepted.
///
/// # Errors
/// `CORRUPT` if it is no event or has no time.
pub fn read_stored<'a>(event: &mut Event<'a>, bytes: &'a [u8], index: u32) -> Result<i64, EngineError> {
    if let Err(error) = event.read(bytes) {
        return Err(corrupt(format!(
            "event {index}: {} at byte {}",
            error.what, error.offset
        )));
    }
    event
        .time_us()
        .ok_or_else(|| corrupt(format!("event {index} has no time")))
}

/// Appends an event to a payload, followed by `extra` fields of its own.
#[inline]
pub fn put_event(raw: &mut Vec<u8>, event: &[u8], extra: &[u8]) {
    raw.push(EVENTS_TAG);
    put_varint(raw, (event.len() + extra.len()) as u64);
    raw.extend_from_slice(event);
    raw.extend_from_slice(extra);
}

/// A payload or chain that does not verify.
pub fn corrupt(message: impl Into<String>) -> EngineError {
    EngineError::new(Reason::Corrupt, message)
}

fn unknown_codec(codec: u8) -> String {
    format!("codec {codec} is none of 0 (as is), 1 (lz4), 2 (zstd)")
}

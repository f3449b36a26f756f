//! Rows of the segments table: one segment each, or a pack of neighbours.
//!
//! A pack's payload is theirs, one after the other, which is a
//! `RecordUsageRequest` again. Its parts keep, for each of them, what its
//! digest covers and the digest. So the chain goes through a pack as it went
//! through the rows, and every segment in it can still be proven.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::EngineError;
use crate::event::Event;
use crate::segment::{Digest, Header, compress, corrupt, decompress, event_slices, read_stored};

/// Event count, raw bytes, time of recording, digest; little-endian.
pub const PART_BYTES: usize = 48;
/// Packs are written once and read seldom: zstd.
const CODEC: u8 = 2;

/// A row as stored.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Of a pack: its last position, its sums, its latest time of recording.
    pub header: Header,
    /// As `Segment::codec`.
    pub codec: u8,
    /// Compressed.
    pub payload: &'a [u8],
    /// Of the last segment.
    pub digest: Digest,
    /// Of a pack; empty: the row is a segment.
    pub parts: &'a [u8],
}

/// A segment in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// As it was when it had a row of its own.
    pub header: Header,
    /// As stored.
    pub digest: Digest,
    /// Where it is in the row's payload, decompressed.
    pub bytes: Range<usize>,
}

/// A new pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Last position, sums, latest time of recording.
    pub header: Header,
    /// As `Segment::codec`.
    pub codec: u8,
    /// Compressed.
    pub payload: Vec<u8>,
    /// Of the last segment.
    pub digest: Digest,
    /// Encoded.
    pub parts: Vec<u8>,
}

impl<'a> Row<'a> {
    /// The segments in it, oldest first; one unless it is a pack.
    ///
    /// # Errors
    /// `CORRUPT` if the row says something else than its parts.
    pub fn pieces(&self) -> Result<Vec<Piece>, EngineError> {
        let header = self.header;
        if self.parts.is_empty() {
            let bytes = 0..header.raw_bytes as usize;
            return Ok(vec![Piece {
                header,
                digest: self.digest,
                bytes,
            }]);
        }
        let pieces = cut(header.tenant, header.position, self.parts)?;
        let events: u64 = pieces.iter().map(|one| u64::from(one.header.event_count)).sum();
        let raw_bytes = pieces.last().map_or(0, |last| last.bytes.end);
        let recorded_us = pieces.iter().map(|one| one.header.recorded_us).max();
        let digest = pieces.last().map(|last| last.digest);
        if (events, raw_bytes as u64) != (header.event_count.into(), header.raw_bytes.into())
            || recorded_us != Some(header.recorded_us)
            || digest != Some(self.digest)
        {
            return Err(corrupt("the pack says something else than its parts"));
        }
        Ok(pieces)
    }

    /// The payload, decompressed.
    ///
    /// # Errors
    /// `CORRUPT`.
    pub fn raw(&self) -> Result<Cow<'a, [u8]>, EngineError> {
        decompress(self.codec, self.payload, self.header.raw_bytes as usize)
    }

    /// Reads everything again: each segment has as many events as its header
    /// says, all between the row's least and greatest time. Gives the digests
    /// that the chain should have for them, each after the one stored before
    /// it; the caller compares.
    ///
    /// # Errors
    /// `CORRUPT`.
    pub fn verify(
        &self,
        previous: &Digest,
        min_time_us: i64,
        max_time_us: i64,
    ) -> Result<Vec<Digest>, EngineError> {
        let raw = self.raw()?;
        let mut event = Event::default();
        let (mut least, mut greatest) = (i64::MAX, i64::MIN);
        let mut previous = *previous;
        let mut digests = Vec::new();
        for piece in self.pieces()? {
            let bytes = &raw[piece.bytes.clone()];
            for (index, bytes) in (0_u32..).zip(piece.events(bytes)?) {
                let time_us = read_stored(&mut event, bytes, index)?;
                (least, greatest) = (least.min(time_us), greatest.max(time_us));
            }
            digests.push(piece.header.digest(&previous, bytes));
            previous = piece.digest;
        }
        if (least, greatest) != (min_time_us, max_time_us) {
            return Err(corrupt(format!(
                "event times are {least} to {greatest}, the row says {min_time_us} to {max_time_us}"
            )));
        }
        Ok(digests)
    }
}

impl Piece {
    /// Its events, from its part of the payload.
    ///
    /// # Errors
    /// `CORRUPT` unless they are as many as its header says.
    pub fn events<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, EngineError> {
        let slices = event_slices(bytes)?;
        if slices.len() != self.header.event_count as usize {
            let (found, wanted) = (slices.len(), self.header.event_count);
            return Err(corrupt(format!("{found} events instead of {wanted}")));
        }
        Ok(slices)
    }
}

/// A row for who wants its events alone.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Of a pack: its last.
    pub position: u64,
    /// As `Segment::codec`.
    pub codec: u8,
    /// Compressed.
    pub payload: &'a [u8],
    /// Length of the payload when decompressed.
    pub raw_bytes: usize,
    /// Of a pack; empty: the row is a segment.
    pub parts: &'a [u8],
}

impl<'a> Stored<'a> {
    /// The payload, decompressed, and the segments in it; of a row that is no
    /// pack only the position is known.
    ///
    /// # Errors
    /// `CORRUPT`.
    pub fn open(&self) -> Result<(Cow<'a, [u8]>, Vec<Piece>), EngineError> {
        let raw = decompress(self.codec, self.payload, self.raw_bytes)?;
        if self.parts.is_empty() {
            let header = Header {
                position: self.position,
                ..Header::default()
            };
            let piece = Piece {
                header,
                digest: Digest::default(),
                bytes: 0..raw.len(),
            };
            return Ok((raw, vec![piece]));
        }
        let pieces = cut(0, self.position, self.parts)?;
        if pieces.last().map_or(0, |last| last.bytes.end) != raw.len() {
            return Err(corrupt("the pack's payload is not as long as its parts"));
        }
        Ok((raw, pieces))
    }
}

/// Cuts a pack at its parts; the last of them is at `position`.
fn cut(tenant: u32, position: u64, parts: &[u8]) -> Result<Vec<Piece>, EngineError> {
    let parts = parts.chunks_exact(PART_BYTES);
    let before = position.checked_sub(parts.len() as u64);
    let (Some(before), []) = (before, parts.remainder()) else {
        return Err(corrupt("the parts of a pack are not as long as they must be"));
    };
    let mut begin = 0;
    let piece = |(position, part)| {
        let (header, digest) = decode(tenant, position, part)?;
        let end = begin + header.raw_bytes as usize;
        let bytes = std::mem::replace(&mut begin, end)..end;
        Some(Piece {
            header,
            digest,
            bytes,
        })
    };
    let pieces: Option<Vec<Piece>> = (before + 1..).zip(parts).map(piece).collect();
    pieces.ok_or_else(|| corrupt("a part of a pack is too short"))
}

fn decode(tenant: u32, position: u64, part: &[u8]) -> Option<(Header, Digest)> {
    let (event_count, rest) = part.split_first_chunk()?;
    let (raw_bytes, rest) = rest.split_first_chunk()?;
    let (recorded_us, digest) = rest.split_first_chunk()?;
    let header = Header {
        tenant,
        position,
        event_count: u32::from_le_bytes(*event_count),
        recorded_us: i64::from_le_bytes(*recorded_us),
        raw_bytes: u32::from_le_bytes(*raw_bytes),
    };
    Some((header, digest.try_into().ok()?))
}

fn encode(out: &mut Vec<u8>, piece: &Piece) {
    out.extend_from_slice(&piece.header.event_count.to_le_bytes());
    out.extend_from_slice(&piece.header.raw_bytes.to_le_bytes());
    out.extend_from_slice(&piece.header.recorded_us.to_le_bytes());
    out.extend_from_slice(&piece.digest);
}

/// Makes a pack of neighbours, oldest first, proving each on the way: what
/// does not verify keeps its row.
///
/// # Errors
/// `CORRUPT`.
pub fn pack(previous: &Digest, rows: &[Row<'_>]) -> Result<Pack, EngineError> {
    let Some(last) = rows.last() else {
        return Err(corrupt("nothing to pack"));
    };
    let mut header = Header {
        event_count: 0,
        raw_bytes: 0,
        recorded_us: i64::MIN,
        ..last.header
    };
    let (mut all, mut parts) = (Vec::new(), Vec::new());
    let mut before = *previous;
    let mut position = None;
    for row in rows {
        let raw = row.raw()?;
        for piece in row.pieces()? {
            let bytes = &raw[piece.bytes.clone()];
            let one = piece.header;
            if position.is_some_and(|position| position + 1 != one.position)
                || one.digest(&before, bytes) != piece.digest
            {
                let place = one.position;
                return Err(corrupt(format!(
                    "position {place}: it does not fit the segment before it"
                )));
            }
            all.extend_from_slice(bytes);
            encode(&mut parts, &piece);
            let sums = header.event_count.checked_add(one.event_count);
            let sums = sums.zip(header.raw_bytes.checked_add(one.raw_bytes));
            (header.event_count, header.raw_bytes) = sums.ok_or_else(|| corrupt("too much for one pack"))?;
            header.recorded_us = header.recorded_us.max(one.recorded_us);
            (position, before) = (Some(one.position), piece.digest);
        }
    }
    let mut payload = compress(CODEC, &all)?;
    let mut codec = CODEC;
    if payload.len() >= all.len() {
        (payload, codec) = (all, 0);
    }
    Ok(Pack {
        header,
        codec,
        payload,
        digest: last.digest,
        parts,
    })
}

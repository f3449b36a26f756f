//! Rows of the segments table, packs among them.

use _native::builder::MeterBuilder;
use _native::event::Event;
use _native::pack::{PART_BYTES, Row, Stored, pack};
use _native::replay::Replay;
use _native::segment::{Digest, Header, decompress, read_stored};

use super::{KEY, MAX_RAW_BYTES, NOW, TENANT, engine, meters};

const MAX_PARTS: u8 = 8;
const FIRST: Digest = [0; 32];

/// A row: codec, number of parts, count of events and length of a row without parts, the parts, what
/// is stored. Its sums, digests and checksum are put right. Whoever reads it agrees on whether it can
/// be read.
pub fn row(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<6>() else {
        return;
    };
    let count = usize::from(head[1] % (MAX_PARTS + 1));
    let Some((parts, stored)) = rest.split_at_checked(count * PART_BYTES) else {
        return;
    };
    let codec = head[0] % 4;
    let mut stored = stored.to_vec();
    if codec != 0 {
        let checksum = crc32fast::hash(&stored);
        stored.extend_from_slice(&checksum.to_le_bytes());
    }
    let header = Header {
        tenant: TENANT,
        position: count.max(1) as u64,
        event_count: u32::from_le_bytes([head[2], 0, 0, 0]),
        recorded_us: NOW,
        raw_bytes: u32::from_le_bytes([head[3], head[4], head[5], 0]),
    };
    let mut parts = parts.to_vec();
    let mut whole = Row {
        header,
        codec,
        payload: &stored,
        digest: FIRST,
        parts: &[],
    };
    if !put_right(&mut whole, &mut parts) {
        return;
    }
    read(&Row {
        parts: &parts,
        ..whole
    });
}

/// Sums and digests as the parts say; false if nobody need look at such a row.
fn put_right(row: &mut Row<'_>, parts: &mut [u8]) -> bool {
    let word =
        |part: &[u8], at: usize| u32::from_le_bytes([part[at], part[at + 1], part[at + 2], part[at + 3]]);
    if !parts.is_empty() {
        let sum = |at| {
            parts
                .chunks(PART_BYTES)
                .map(|part| u64::from(word(part, at)))
                .sum::<u64>()
        };
        let (events, raw_bytes) = (sum(0), sum(4));
        let (Ok(events), Ok(raw_bytes)) = (u32::try_from(events), u32::try_from(raw_bytes)) else {
            return false;
        };
        (row.header.event_count, row.header.raw_bytes) = (events, raw_bytes);
        let recorded = parts.chunks(PART_BYTES).map(|part| {
            let bytes = part[8..].first_chunk().copied().unwrap_or_default();
            i64::from_le_bytes(bytes)
        });
        row.header.recorded_us = recorded.max().unwrap_or(NOW);
    }
    if row.header.raw_bytes as usize > MAX_RAW_BYTES {
        return false;
    }
    let Ok(raw) = decompress(row.codec, row.payload, row.header.raw_bytes as usize) else {
        return true;
    };
    if parts.is_empty() {
        row.digest = row.header.digest(&FIRST, &raw);
        return true;
    }
    let (mut previous, mut begin) = (FIRST, 0);
    for (position, part) in (1..).zip(parts.chunks_mut(PART_BYTES)) {
        let recorded = part[8..].first_chunk().copied().unwrap_or_default();
        let header = Header {
            tenant: TENANT,
            position,
            event_count: word(part, 0),
            recorded_us: i64::from_le_bytes(recorded),
            raw_bytes: word(part, 4),
        };
        let end = begin + header.raw_bytes as usize;
        previous = header.digest(&previous, &raw[begin..end]);
        part[16..].copy_from_slice(&previous);
        begin = end;
    }
    row.digest = previous;
    true
}

fn read(row: &Row<'_>) {
    let times = times(row);
    let (least, greatest) = times.unwrap_or((i64::MAX, i64::MIN));
    let readable = times.is_some();
    assert_eq!(row.verify(&FIRST, least, greatest).is_ok(), readable);
    let replay = Replay {
        tenant: TENANT,
        rows: &[*row],
        upto: u64::MAX,
        known: 0,
        fold: true,
        now_us: NOW,
    };
    assert_eq!(engine().replay(&replay).is_ok(), readable);
    let stored = Stored {
        position: row.header.position,
        codec: row.codec,
        payload: row.payload,
        raw_bytes: row.header.raw_bytes as usize,
        parts: row.parts,
    };
    let mut builder = MeterBuilder::new(&KEY, TENANT, meters().remove(0));
    // Who only wants the events does not count them.
    assert!(builder.add(&stored, u64::MAX).is_ok() || !readable);
    if let Ok(packed) = pack(&FIRST, &[*row]) {
        let again = Row {
            header: packed.header,
            codec: packed.codec,
            payload: &packed.payload,
            digest: packed.digest,
            parts: &packed.parts,
        };
        assert_eq!(again.pieces(), row.pieces());
        assert_eq!(again.raw(), row.raw());
    } else {
        assert!(!readable);
    }
}

/// The least and the greatest time of its events, if it can be read.
fn times(row: &Row<'_>) -> Option<(i64, i64)> {
    let raw = row.raw().ok()?;
    let (mut least, mut greatest) = (i64::MAX, i64::MIN);
    for piece in row.pieces().ok()? {
        let slices = piece.events(&raw[piece.bytes.clone()]).ok()?;
        for (index, bytes) in (0..).zip(slices) {
            let time_us = read_stored(&mut Event::default(), bytes, index).ok()?;
            (least, greatest) = (least.min(time_us), greatest.max(time_us));
        }
    }
    Some((least, greatest))
}

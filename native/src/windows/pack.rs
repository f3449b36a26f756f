//! Making blocks: from frozen tables, and from blocks.

use std::collections::BTreeMap;

use super::block::{Block, Header, LZ4, OpenBlock, RAW, Section, day_of, digest};
use super::codec::{corrupt, put_length, put_partial};
use super::group::{parts, subject};
use super::partial::Partial;
use super::table::Table;
use crate::error::EngineError;
use crate::meter::MeterSpec;

/// Where a block ends at the next subject, and where it ends at the next group.
const TARGET_BYTES: usize = 64 << 10;
const LIMIT_BYTES: usize = 4 * TARGET_BYTES;

/// Makes blocks from groups that come in order of their keys.
#[derive(Debug)]
struct BlockWriter {
    header: Header,
    done: Vec<Block>,
    body: Vec<u8>,
    rows: usize,
    subject_min: Vec<u8>,
    subject_max: Vec<u8>,
}

impl BlockWriter {
    fn new(header: Header) -> Self {
        let (subject_min, subject_max) = (Vec::new(), Vec::new());
        Self {
            header,
            done: Vec::new(),
            body: Vec::new(),
            rows: 0,
            subject_min,
            subject_max,
        }
    }

    /// Appends one group.
    fn push(&mut self, section: &Section<'_>) {
        let subject = subject(section.key);
        let full = self.body.len() >= TARGET_BYTES && subject != self.subject_max;
        if full || self.body.len() >= LIMIT_BYTES {
            self.cut();
        }
        if self.body.is_empty() {
            self.subject_min = subject.to_vec();
        }
        self.subject_max.clear();
        self.subject_max.extend_from_slice(subject);
        put_length(&mut self.body, section.key.len());
        self.body.extend_from_slice(section.key);
        put_length(&mut self.body, section.rows);
        put_length(&mut self.body, section.bytes.len());
        self.body.extend_from_slice(section.bytes);
        self.rows += section.rows;
    }

    fn finish(mut self) -> Vec<Block> {
        self.cut();
        self.done
    }

    fn cut(&mut self) {
        if self.body.is_empty() {
            return;
        }
        let packed = lz4_flex::block::compress(&self.body);
        let (codec, stored) = if packed.len() < self.body.len() {
            (LZ4, &packed)
        } else {
            (RAW, &self.body)
        };
        let row_count = u32::try_from(self.rows).unwrap_or(u32::MAX);
        let head = self.header.to_bytes(codec, row_count, self.body.len());
        let mut payload = Vec::with_capacity(40 + stored.len());
        payload.extend_from_slice(&head);
        payload.extend_from_slice(&digest(&head, stored));
        payload.extend_from_slice(stored);
        let Header {
            tenant, meter, day, ..
        } = self.header;
        let subject_min = std::mem::take(&mut self.subject_min);
        let subject_max = self.subject_max.clone();
        self.done.push(Block {
            tenant,
            meter,
            day,
            subject_min,
            subject_max,
            row_count,
            payload,
        });
        self.body.clear();
        self.rows = 0;
    }
}

/// Appends rows of one group and day, sorted by minute.
fn put_rows<'a>(out: &mut Vec<u8>, header: &Header, rows: impl Iterator<Item = (i32, &'a Partial)>) {
    let mut previous = header.first_minute();
    for (minute, partial) in rows {
        let distance = i64::from(minute) - previous;
        put_length(out, usize::try_from(distance).unwrap_or(0));
        put_partial(out, partial, minute);
        previous = i64::from(minute);
    }
}

/// A group's key, and its rows by minute.
pub type GroupRows<'a> = (&'a [u8], &'a [(u32, i32, u32)]);

/// Blocks of a table's column, one or more per day; the groups are in the order of their keys.
pub fn encode(
    tenant: u32,
    spec: &MeterSpec,
    table: &Table,
    column: u32,
    groups: &[GroupRows<'_>],
) -> Vec<Block> {
    let mut writers = BTreeMap::new();
    let mut bytes = Vec::new();
    for (key, rows) in groups {
        for rows in rows.chunk_by(|(_, a, _), (_, b, _)| day_of(*a) == day_of(*b)) {
            let counted = |(_, minute, row): &(u32, i32, u32)| {
                let partial = table.cell(*row, column);
                (partial.count() > 0).then_some((*minute, partial))
            };
            let count = rows.iter().filter_map(counted).count();
            if count == 0 {
                continue;
            }
            let day = day_of(rows[0].1);
            let writer = writers
                .entry(day)
                .or_insert_with(|| BlockWriter::new(Header::of(tenant, spec, day)));
            bytes.clear();
            put_rows(&mut bytes, &writer.header, rows.iter().filter_map(counted));
            writer.push(&Section {
                key,
                rows: count,
                bytes: &bytes,
            });
        }
    }
    writers.into_values().flat_map(BlockWriter::finish).collect()
}

/// Merges blocks of one meter and day; splits the result by subject where it grows past about
/// 64 KiB, inside a subject only where that alone grows past 256 KiB. No payloads: no blocks.
///
/// # Errors
/// `CORRUPT` for a payload that does not verify, belongs elsewhere or has other dimensions.
pub fn merge_blocks(
    tenant: u32,
    meter: u32,
    day: i32,
    payloads: &[&[u8]],
) -> Result<Vec<Block>, EngineError> {
    let blocks = payloads
        .iter()
        .map(|payload| OpenBlock::read(payload))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(header) = blocks.first().map(|block| block.header) else {
        return Ok(Vec::new());
    };
    if (header.tenant, header.meter, header.day) != (tenant, meter, day) {
        return Err(corrupt("it is of another tenant, meter or day"));
    }
    if blocks.iter().any(|block| block.header != header) {
        return Err(corrupt("blocks to merge are of different kinds"));
    }
    let mut sections = Vec::new();
    for block in &blocks {
        sections.extend(block.sections()?);
    }
    sections.sort_by(|a, b| parts(a.key).cmp(parts(b.key)));
    let mut writer = BlockWriter::new(header);
    for same in sections.chunk_by(|a, b| a.key == b.key) {
        match same {
            [only] => writer.push(only),
            _ => merge_sections(&mut writer, same)?,
        }
    }
    Ok(writer.finish())
}

fn merge_sections(writer: &mut BlockWriter, same: &[Section<'_>]) -> Result<(), EngineError> {
    let header = writer.header;
    let mut rows: Vec<(i32, Partial)> = Vec::new();
    for section in same {
        section.rows(&header, |minute, partial| rows.push((minute, partial)))?;
    }
    rows.sort_by_key(|(minute, _)| *minute);
    rows.dedup_by(|(minute, partial), (kept_minute, kept)| {
        let equal = minute == kept_minute;
        if equal {
            kept.merge(partial);
        }
        equal
    });
    let mut bytes = Vec::new();
    put_rows(
        &mut bytes,
        &header,
        rows.iter().map(|(minute, partial)| (*minute, partial)),
    );
    writer.push(&Section {
        key: same[0].key,
        rows: rows.len(),
        bytes: &bytes,
    });
    Ok(())
}

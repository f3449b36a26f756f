//! How counts, values and partials become bytes. Reading is bounded by the bytes that are there.

use super::partial::{Arrival, Hashes, Partial};
use super::wide::{WIDE_BYTES, Wide};
use crate::error::{EngineError, Reason};
use crate::meter::{Aggregation, MINUTE_US};

/// Most values are whole: they are written without their twelve zeros.
const SCALE: i64 = 1_000_000_000_000;

/// A block that does not verify.
pub fn corrupt(what: &str) -> EngineError {
    EngineError::new(Reason::Corrupt, format!("block: {what}"))
}

/// Seven bits a byte, the least first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A length or count.
pub fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varint(out, u64::try_from(length).unwrap_or(u64::MAX));
}

/// Reads from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], EngineError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| corrupt("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], EngineError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| corrupt("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// What `put_varint` wrote.
    pub fn varint(&mut self) -> Result<u64, EngineError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(corrupt("a number is too long"))
    }

    /// What `put_length` wrote: at most as much as there are bytes left.
    pub fn length(&mut self) -> Result<usize, EngineError> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if length > self.0.len() {
            return Err(corrupt("a length is beyond its end"));
        }
        Ok(length)
    }
}

/// A small whole value is twice its zigzag code; any other one an odd length and so many bytes.
fn put_wide(out: &mut Vec<u8>, value: Wide) {
    let small = value.narrow().and_then(|value| i64::try_from(value).ok());
    if let Some(value) = small.filter(|value| value % SCALE == 0) {
        return put_varint(out, zigzag(value / SCALE) << 1);
    }
    let bytes = value.to_bytes();
    let sign = if bytes[WIDE_BYTES - 1] & 0x80 == 0 {
        0
    } else {
        0xff
    };
    let mut length = WIDE_BYTES;
    while length > 1 && bytes[length - 1] == sign && (bytes[length - 2] ^ sign) & 0x80 == 0 {
        length -= 1;
    }
    put_length(out, length << 1 | 1);
    out.extend_from_slice(&bytes[..length]);
}

fn wide(reader: &mut Reader<'_>) -> Result<Wide, EngineError> {
    let code = reader.varint()?;
    if code & 1 == 0 {
        return Ok(Wide::from(i128::from(unzigzag(code >> 1)) * i128::from(SCALE)));
    }
    let length = usize::try_from(code >> 1).unwrap_or(usize::MAX);
    if length == 0 || length > WIDE_BYTES {
        return Err(corrupt("a value has no such length"));
    }
    let taken = reader.bytes(length)?;
    let sign = if taken[length - 1] & 0x80 == 0 { 0 } else { 0xff };
    let mut bytes = [sign; WIDE_BYTES];
    bytes[..length].copy_from_slice(taken);
    Ok(Wide::from_bytes(bytes))
}

fn zigzag(value: i64) -> u64 {
    u64::from_le_bytes((value << 1 ^ value >> 63).to_le_bytes())
}

fn unzigzag(code: u64) -> i64 {
    let half = i64::from_le_bytes((code >> 1).to_le_bytes());
    if code & 1 == 0 { half } else { !half }
}

/// Appends a partial of a minute; its aggregation is known to the reader.
pub fn put_partial(out: &mut Vec<u8>, partial: &Partial, minute: i32) {
    put_varint(out, partial.count());
    match partial {
        Partial::Count { .. } => {}
        Partial::Sum { sum: value, .. } | Partial::Min { value, .. } | Partial::Max { value, .. } => {
            put_wide(out, *value);
        }
        Partial::Latest { last, .. } => {
            if let Some(last) = last {
                put_varint(
                    out,
                    zigzag(last.time_us.wrapping_sub(i64::from(minute) * MINUTE_US)),
                );
                put_varint(out, last.position);
                put_varint(out, u64::from(last.index));
                put_wide(out, Wide::from(last.value));
            }
        }
        Partial::Unique { hashes, .. } => {
            let hashes = hashes.sorted();
            put_length(out, hashes.len());
            for hash in hashes {
                out.extend_from_slice(&hash.to_le_bytes());
            }
        }
    }
}

/// What `put_partial` wrote.
pub fn partial(reader: &mut Reader<'_>, kind: Aggregation, minute: i32) -> Result<Partial, EngineError> {
    let n = reader.varint()?;
    if n == 0 {
        return Err(corrupt("a row counts no events"));
    }
    Ok(match kind {
        Aggregation::Count => Partial::Count { n },
        Aggregation::Sum | Aggregation::Avg => Partial::Sum {
            n,
            sum: wide(reader)?,
        },
        Aggregation::Min => Partial::Min {
            n,
            value: wide(reader)?,
        },
        Aggregation::Max => Partial::Max {
            n,
            value: wide(reader)?,
        },
        Aggregation::Latest => Partial::Latest {
            n,
            last: Some(Box::new(arrival(reader, minute)?)),
        },
        Aggregation::UniqueCount => Partial::Unique {
            n,
            hashes: hashes(reader)?,
        },
    })
}

fn arrival(reader: &mut Reader<'_>, minute: i32) -> Result<Arrival, EngineError> {
    let time_us = unzigzag(reader.varint()?).wrapping_add(i64::from(minute) * MINUTE_US);
    let position = reader.varint()?;
    let index = u32::try_from(reader.varint()?).map_err(|_| corrupt("an index is too great"))?;
    let value = wide(reader)?
        .narrow()
        .ok_or_else(|| corrupt("a value is too great"))?;
    Ok(Arrival {
        time_us,
        position,
        index,
        value,
    })
}

fn hashes(reader: &mut Reader<'_>) -> Result<Hashes, EngineError> {
    let length = reader.length()?;
    let mut hashes = Hashes::new();
    for _ in 0..length {
        hashes.insert(u128::from_le_bytes(reader.array()?));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(number: u64, first: i128, second: i128, whole: i32) {
            let whole = Wide::from(i128::from(whole) * i128::from(SCALE));
            let sum = Wide::from(first).plus(Wide::from(second));
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            for value in [Wide::from(first), sum, whole] {
                put_wide(&mut bytes, value);
            }
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(number));
            for value in [Wide::from(first), sum, whole] {
                prop_assert_eq!(wide(&mut reader), Ok(value));
            }
            prop_assert!(reader.is_done());
        }
    }

    #[test]
    fn whole_values_are_short() {
        let mut bytes = Vec::new();
        put_wide(&mut bytes, Wide::from(31 * i128::from(SCALE)));
        assert_eq!(bytes.len(), 1);
    }
}

//! Protobuf's wire format, walked in place.
//!
//! Accepts what the reference parser accepts: over-long varints (ten bytes; a
//! tag or a length five), unknown fields and groups. Two differences, both in
//! groups, which no message of ours has: they nest 32 deep here and 100 there,
//! and field number 0 is refused inside them, too, as other parsers do that
//! may read a stored payload.

/// How deep unknown groups may nest.
pub const MAX_GROUP_DEPTH: u32 = 32;
/// The reference parser's bound on a length.
const MAX_LENGTH: u64 = i32::MAX as u64;

/// Bytes that are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// Where in the bytes walked.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// A fixed-width number or a group: nothing of ours, checked and skipped.
    Other,
}

/// Reads fields one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            length: bytes.len(),
        }
    }

    /// Where the next field starts.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.length - self.rest.len()
    }

    /// The next field's number and value, None at the end.
    ///
    /// # Errors
    /// When the bytes are not protobuf.
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        match self.rest {
            [] => return Ok(None),
            // A short text in one of the first 15 fields: nearly all that comes.
            [tag @ 0x08..0x80, length @ 0..0x80, rest @ ..] if tag % 8 == 2 => {
                if let Some((bytes, rest)) = rest.split_at_checked(usize::from(*length)) {
                    self.rest = rest;
                    return Ok(Some((u32::from(tag >> 3), Value::Bytes(bytes))));
                }
            }
            [tag @ 0x08..0x80, rest @ ..] if tag % 8 == 0 => {
                if let Some((value, rest)) = short_varint(rest) {
                    self.rest = rest;
                    return Ok(Some((u32::from(tag >> 3), Value::Varint(value))));
                }
            }
            _ => {}
        }
        self.any_field().map(Some)
    }

    fn any_field(&mut self) -> Result<(u32, Value<'a>), WireError> {
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            0 => Value::Varint(self.varint(10)?),
            2 => Value::Bytes(self.bytes()?),
            _ => {
                self.skip(number, wire_type, 0)?;
                Value::Other
            }
        };
        Ok((number, value))
    }

    fn error(&self, what: &'static str) -> WireError {
        WireError {
            offset: self.offset(),
            what,
        }
    }

    fn tag(&mut self) -> Result<(u32, u32), WireError> {
        let start = self.clone();
        match u32::try_from(self.varint(5)?) {
            Ok(0..8) => Err(start.error("field number 0")),
            Ok(tag) => Ok((tag >> 3, tag & 7)),
            Err(_) => Err(start.error("a tag is out of range")),
        }
    }

    /// A varint of at most `limit` bytes; bits above 64 are dropped.
    fn varint(&mut self, limit: usize) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for (i, &byte) in self.rest.iter().take(limit).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(self.error("a varint does not end"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let start = self.clone();
        let length = self.varint(5)?;
        // A length beyond the reference's bound is refused, however long the rest.
        let length = usize::try_from(length.min(MAX_LENGTH + 1)).unwrap_or(usize::MAX);
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) if length as u64 <= MAX_LENGTH => {
                self.rest = rest;
                Ok(bytes)
            }
            _ => Err(start.error("a length reaches past the end")),
        }
    }

    fn skip(&mut self, number: u32, wire_type: u32, depth: u32) -> Result<(), WireError> {
        match wire_type {
            0 => self.varint(10).map(drop),
            1 => self.advance(8),
            2 => self.bytes().map(drop),
            3 => self.skip_group(number, depth + 1),
            4 => Err(self.error("a group ends that did not start")),
            5 => self.advance(4),
            _ => Err(self.error("an unknown wire type")),
        }
    }

    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), WireError> {
        if depth > MAX_GROUP_DEPTH {
            return Err(self.error("groups nest too deep"));
        }
        loop {
            if self.rest.is_empty() {
                return Err(self.error("a group does not end"));
            }
            match self.tag()? {
                (end, 4) if end == number => return Ok(()),
                (inner, wire_type) => self.skip(inner, wire_type, depth)?,
            }
        }
    }

    fn advance(&mut self, count: usize) -> Result<(), WireError> {
        let Some((_, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error("a fixed-width number is cut off"));
        };
        self.rest = rest;
        Ok(())
    }
}

/// A varint of up to five bytes, as times and counts are.
#[inline]
fn short_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

/// Appends a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a varint field; 0, the default, is left out.
pub fn put_number(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        put_varint(out, u64::from(field << 3));
        put_varint(out, value.cast_unsigned());
    }
}

/// Appends a length-delimited field; an empty one is left out.
pub fn put_text(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        put_bytes(out, field, value);
    }
}

/// Appends a length-delimited field, even if empty.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_varint(out, u64::from(field << 3 | 2));
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, WireError> {
        let mut reader = Reader::new(bytes);
        std::iter::from_fn(|| reader.field().transpose()).collect()
    }

    #[test]
    fn over_long_varints_are_read() {
        assert_eq!(walk(&[0x08, 0x81, 0x80, 0x00]), Ok(vec![(1, Value::Varint(1))]));
        assert_eq!(
            walk(&[0x88, 0x80, 0x80, 0x80, 0x00, 0x05]),
            Ok(vec![(1, Value::Varint(5))])
        );
        let ten = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(walk(&ten), Ok(vec![(1, Value::Varint(u64::MAX))]));
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        for bytes in [
            &[0x00_u8, 0x00][..],                                         // field number 0
            &[0x88, 0x80, 0x80, 0x80, 0x10, 0x00],                        // tag beyond 32 bits
            &[0x88, 0x80, 0x80, 0x80, 0x80, 0x00, 0x00],                  // tag of six bytes
            &[0x08, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0], // varint of eleven bytes
            &[0x0a, 0x02, 0x00],                                          // length past the end
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],                        // length beyond 31 bits
            &[0x0c],                                                      // group end without start
            &[0x0b, 0x14],                                                // other group's end
            &[0x0b],                                                      // group without end
            &[0x0e, 0x00],                                                // wire type 6
            &[0x0f, 0x00],                                                // wire type 7
            &[0x09, 0, 0, 0, 0, 0, 0, 0],
            &[0x0d, 0, 0, 0],
        ] {
            assert!(walk(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn groups_are_skipped_up_to_the_depth() {
        let nested = |depth: usize| [vec![0x1b; depth], vec![0x1c; depth]].concat();
        let limit = MAX_GROUP_DEPTH as usize;
        assert_eq!(walk(&nested(limit)), Ok(vec![(3, Value::Other)]));
        assert!(walk(&nested(limit + 1)).is_err());
        assert!(walk(&vec![0x1b; 1_000_000]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = walk(&bytes);
        }

        #[test]
        fn varints_round_trip(value in any::<u64>()) {
            let mut bytes = vec![0x08];
            put_varint(&mut bytes, value);
            prop_assert_eq!(walk(&bytes), Ok(vec![(1, Value::Varint(value))]));
        }
    }
}

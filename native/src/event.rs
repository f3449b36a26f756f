//! One event, read in place and judged by the rules that need no state.

use std::borrow::Cow;

use crate::hash::same;
use crate::response::{EventReason, Rejection};
use crate::wire::{Reader, Value, WireError};

/// Bytes of an event as sent.
pub const MAX_EVENT: usize = 16 * 1024;
/// Bytes of id, source, type and subject.
pub const MAX_TEXT: usize = 256;
/// Distinct property names of an event.
pub const MAX_PROPERTIES: usize = 64;

/// An event of the greatest size, stamped with its received time.
const MAX_STORED: usize = MAX_EVENT + 64;
/// Field 15, length-delimited: `received_time`.
const RECEIVED_TIME_FIELD: u32 = 15;
const MIN_SECONDS: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
const MAX_SECONDS: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Since the epoch.
    pub seconds: i64,
    /// Of the second; 0 to 999,999,999 if valid.
    pub nanos: i32,
}

impl Timestamp {
    /// Year 1 to 9999, nanoseconds within the second.
    #[must_use]
    pub fn is_valid(self) -> bool {
        (MIN_SECONDS..=MAX_SECONDS).contains(&self.seconds) && (0..1_000_000_000).contains(&self.nanos)
    }

    /// Microseconds, floored; meant for valid times.
    #[inline]
    #[must_use]
    pub fn micros(self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(self.nanos.div_euclid(1000)))
    }
}

/// A `UsageEvent`, borrowed from the request. One is reused for all events of
/// a request, so that none allocates.
#[derive(Debug, Default)]
pub struct Event<'a> {
    /// Field 1.
    pub id: &'a [u8],
    /// Field 2.
    pub source: &'a [u8],
    /// Field 3, `type`.
    pub kind: &'a [u8],
    /// Field 4.
    pub subject: &'a [u8],
    /// Field 5.
    pub time: Option<Timestamp>,
    /// Field 15.
    pub received_time: Option<Timestamp>,
    /// Field 6, in a fixed order of the names; of a repeated name the last.
    pub properties: Vec<(&'a [u8], &'a [u8])>,
    bytes: &'a [u8],
    /// All but the time is; then no text needs to be looked at.
    ascii: bool,
}

impl<'a> Event<'a> {
    /// Reads an event over whatever was here before. After an error the
    /// fields before the broken place are set.
    ///
    /// # Errors
    /// When the bytes are not a protobuf message.
    pub fn read(&mut self, bytes: &'a [u8]) -> Result<(), WireError> {
        let mut properties = std::mem::take(&mut self.properties);
        properties.clear();
        *self = Self {
            properties,
            bytes,
            ascii: true,
            ..Self::default()
        };
        let mut reader = Reader::new(bytes);
        let mut looked_at = 0;
        while let Some((number, value)) = reader.field()? {
            let Value::Bytes(inner) = value else { continue };
            match number {
                1 => self.id = inner,
                2 => self.source = inner,
                3 => self.kind = inner,
                4 => self.subject = inner,
                5 => {
                    merge_timestamp(&mut self.time, inner)?;
                    // A time is the one thing that is not ASCII as a rule.
                    self.ascii &= bytes[looked_at..reader.offset() - inner.len()].is_ascii();
                    looked_at = reader.offset();
                }
                6 => self.property(inner)?,
                RECEIVED_TIME_FIELD => merge_timestamp(&mut self.received_time, inner)?,
                _ => {}
            }
        }
        self.ascii &= bytes[looked_at..].is_ascii();
        self.sort_properties();
        Ok(())
    }

    /// The value of a property, if it is there.
    #[inline]
    #[must_use]
    pub fn property_value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.properties
            .iter()
            .find(|(key, _)| same(key, name))
            .map(|(_, value)| *value)
    }

    /// Event time, or received time, if either is there; meant for events
    /// that were checked.
    #[inline]
    #[must_use]
    pub fn time_us(&self) -> Option<i64> {
        self.time.or(self.received_time).map(Timestamp::micros)
    }

    /// Judges what a sender may send; times are left to the horizon.
    ///
    /// # Errors
    /// The first rule that the event breaks.
    pub fn check(&self) -> Result<(), Rejection> {
        if !self.ascii {
            if let Some(field) = not_utf8(self.bytes) {
                let message = "the text is not UTF-8: send it encoded as UTF-8";
                return Err(Rejection::new(EventReason::InvalidUtf8, field, message));
            }
        }
        if self.received_time.is_some() {
            let message = "the server sets this field: leave it out, or send the time in `time`";
            return Err(Rejection::new(
                EventReason::ReservedField,
                "received_time",
                message,
            ));
        }
        if self.bytes.len() > MAX_EVENT {
            let message = format!(
                "the event has {} bytes; the limit is {MAX_EVENT}",
                self.bytes.len()
            );
            return Err(Rejection::new(EventReason::TooLarge, "", message));
        }
        check_text("id", self.id)?;
        check_text("source", self.source)?;
        check_text("type", self.kind)?;
        check_text("subject", self.subject)?;
        if self.properties.len() > MAX_PROPERTIES {
            let message = format!(
                "{} properties; the limit is {MAX_PROPERTIES}",
                self.properties.len()
            );
            return Err(Rejection::new(EventReason::TooLarge, "properties", message));
        }
        if self.time.is_some_and(|time| !time.is_valid()) {
            let message = "not a time: the year must be 1 to 9999 and nanos 0 to 999999999";
            return Err(Rejection::new(EventReason::InvalidTime, "time", message));
        }
        Ok(())
    }

    #[inline]
    fn property(&mut self, entry: &'a [u8]) -> Result<(), WireError> {
        let (mut key, mut value) = (&[][..], &[][..]);
        let mut reader = Reader::new(entry);
        while let Some((number, field)) = reader.field()? {
            match (number, field) {
                (1, Value::Bytes(text)) => key = text,
                (2, Value::Bytes(text)) => value = text,
                _ => {}
            }
        }
        // What is too large is refused anyway: do not let it take memory.
        if self.bytes.len() <= MAX_STORED {
            self.properties.push((key, value));
        }
        Ok(())
    }

    /// By length, then bytes: any fixed order will do, and lengths mostly differ.
    fn sort_properties(&mut self) {
        let order = |key: &'a [u8]| (key.len(), key);
        if self
            .properties
            .windows(2)
            .all(|pair| order(pair[0].0) < order(pair[1].0))
        {
            return;
        }
        self.properties
            .sort_by(|one, other| order(one.0).cmp(&order(other.0)));
        // The sort is stable: of equal names the last one sent stands last.
        self.properties.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = next.1;
            }
            same
        });
    }
}

/// The path of a property in messages.
#[must_use]
pub fn property_field(name: &str) -> String {
    format!("properties[{name}]")
}

/// The field that stamps an event which came without a time.
pub fn put_received_time(out: &mut Vec<u8>, time_us: i64) {
    let mut inner = Vec::with_capacity(16);
    crate::wire::put_number(&mut inner, 1, time_us.div_euclid(1_000_000));
    crate::wire::put_number(&mut inner, 2, time_us.rem_euclid(1_000_000) * 1000);
    crate::wire::put_bytes(out, RECEIVED_TIME_FIELD, &inner);
}

fn check_text(field: &'static str, text: &[u8]) -> Result<(), Rejection> {
    if text.is_empty() {
        let message = format!("{field} is required: 1 to {MAX_TEXT} bytes");
        return Err(Rejection::new(EventReason::FieldMissing, field, message));
    }
    if text.len() > MAX_TEXT {
        let message = format!("{field} has {} bytes; the limit is {MAX_TEXT}", text.len());
        return Err(Rejection::new(EventReason::TooLarge, field, message));
    }
    Ok(())
}

/// The first text of an event that is not UTF-8, be it a text that a later
/// one replaces. The event was read without error.
fn not_utf8(bytes: &[u8]) -> Option<Cow<'static, str>> {
    let is_bad = |text| std::str::from_utf8(text).is_err();
    let mut reader = Reader::new(bytes);
    while let Ok(Some((number, value))) = reader.field() {
        match (number, value) {
            (1, Value::Bytes(text)) if is_bad(text) => return Some("id".into()),
            (2, Value::Bytes(text)) if is_bad(text) => return Some("source".into()),
            (3, Value::Bytes(text)) if is_bad(text) => return Some("type".into()),
            (4, Value::Bytes(text)) if is_bad(text) => return Some("subject".into()),
            (6, Value::Bytes(entry)) => {
                let (mut key, mut bad) = (&[][..], false);
                let mut reader = Reader::new(entry);
                while let Ok(Some((number, value))) = reader.field() {
                    let (1 | 2, Value::Bytes(text)) = (number, value) else {
                        continue;
                    };
                    bad |= is_bad(text);
                    key = if number == 1 { text } else { key };
                }
                if bad {
                    let name = std::str::from_utf8(key);
                    return Some(name.map_or("properties".into(), |name| property_field(name).into()));
                }
            }
            _ => {}
        }
    }
    None
}

fn merge_timestamp(time: &mut Option<Timestamp>, bytes: &[u8]) -> Result<(), WireError> {
    let time = time.get_or_insert_default();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Value::Varint(seconds)) => time.seconds = seconds.cast_signed(),
            (2, Value::Varint(nanos)) => time.nanos = low_bits(nanos),
            _ => {}
        }
    }
    Ok(())
}

/// An int32 on the wire is 64 bits of which the low 32 count.
fn low_bits(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

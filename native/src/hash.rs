//! Keyed hashes: identities, content digests, unique values.
//!
//! `SipHash`-1-3 with the database's secret, so that no sender can aim at a
//! collision. Parts are length-prefixed and each use has its own first byte:
//! no two different inputs hash the same bytes.

use siphasher::{sip::SipHasher13 as Sip64, sip128::SipHasher13 as Sip128};

use crate::event::Event;

/// Keyed 128-bit hash of source and id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Decides the place in the table.
    pub high: u64,
    /// The rest.
    pub low: u64,
}

/// The low 48 bits of a keyed hash of what an event says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    const MASK: u64 = (1 << 48) - 1;

    /// Keeps the low 48 bits.
    #[must_use]
    pub fn new(bits: u64) -> Self {
        Self(bits & Self::MASK)
    }

    /// The 48 bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Twelve hex digits, as responses and listings show it.
    #[must_use]
    pub fn hex(self) -> String {
        format!("{:012x}", self.0)
    }
}

/// Hashes with one key; owns the buffer that it hashes from.
#[derive(Clone, Debug)]
pub struct Hasher {
    narrow: Sip64,
    wide: Sip128,
    buffer: Vec<u8>,
}

const IDENTITY: u8 = 1;
const CONTENT: u8 = 2;
const VALUE: u8 = 3;

impl Hasher {
    /// Keys the hashes.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self {
            narrow: Sip64::new_with_key(key),
            wide: Sip128::new_with_key(key),
            buffer: Vec::new(),
        }
    }

    /// What makes an event count once within its tenant.
    #[inline]
    pub fn identity(&mut self, event: &Event<'_>) -> Identity {
        self.start(IDENTITY);
        self.part(event.source);
        self.part(event.id);
        let (high, low) = self.finish();
        Identity { high, low }
    }

    /// What a duplicate must repeat: type, subject, time as sent (floored to
    /// microseconds) and properties in a fixed order.
    #[inline]
    pub fn content(&mut self, event: &Event<'_>) -> Content {
        self.start(CONTENT);
        match event.time {
            Some(time) => {
                self.buffer.push(1);
                self.buffer.extend_from_slice(&time.micros().to_le_bytes());
            }
            None => self.buffer.push(0),
        }
        self.part(event.kind);
        self.part(event.subject);
        for (name, value) in &event.properties {
            self.part(name);
            self.part(value);
        }
        Content::new(self.narrow.hash(&self.buffer))
    }

    /// The value of a `UNIQUE_COUNT` meter.
    #[inline]
    pub fn value(&mut self, value: &[u8]) -> i128 {
        self.start(VALUE);
        self.buffer.extend_from_slice(value);
        let (high, low) = self.finish();
        (u128::from(high) << 64 | u128::from(low)).cast_signed()
    }

    #[inline]
    fn start(&mut self, purpose: u8) {
        self.buffer.clear();
        self.buffer.push(purpose);
    }

    #[inline]
    fn part(&mut self, part: &[u8]) {
        // Parts are shorter than an event, 16 KiB.
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(part);
    }

    #[inline]
    fn finish(&self) -> (u64, u64) {
        let hash = self.wide.hash(&self.buffer);
        (hash.h1, hash.h2)
    }
}

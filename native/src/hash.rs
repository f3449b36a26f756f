//! Keyed hashes: identities, content digests, unique values.
//!
//! `SipHash`-1-3 with the database's secret, so that no sender can aim at a
//! collision. Parts carry their lengths and each use has its own first word:
//! no two different inputs hash the same words.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher13};

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

/// Hashes with one key: one prepared state for each use.
#[derive(Clone, Debug)]
pub struct Hasher {
    identity: Sip,
    timed: Sip,
    untimed: Sip,
    /// Of single values; blocks in the database hold its results.
    value: SipHasher13,
}

const VALUE: u8 = 3;

impl Hasher {
    /// Keys the hashes.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        let start = |purpose| {
            let mut sip = Sip::new(key);
            sip.word(purpose);
            sip
        };
        Self {
            identity: start(1),
            timed: start(2),
            untimed: start(3),
            value: SipHasher13::new_with_key(key),
        }
    }

    /// What makes an event count once within its tenant.
    #[inline]
    #[must_use]
    pub fn identity(&self, event: &Event<'_>) -> Identity {
        let mut sip = self.identity;
        sip.part(event.source);
        sip.part(event.id);
        let (high, low) = sip.finish();
        Identity { high, low }
    }

    /// What a duplicate must repeat: type, subject, time as sent (floored to
    /// microseconds) and properties in a fixed order.
    #[inline]
    #[must_use]
    pub fn content(&self, event: &Event<'_>) -> Content {
        let mut sip = self.untimed;
        if let Some(time) = event.time {
            sip = self.timed;
            sip.word(time.micros().cast_unsigned());
        }
        sip.part(event.kind);
        sip.part(event.subject);
        for (name, value) in &event.properties {
            sip.part(name);
            sip.part(value);
        }
        Content::new(sip.finish().0)
    }

    /// The value of a `UNIQUE_COUNT` meter.
    #[inline]
    #[must_use]
    pub fn value(&self, value: &[u8]) -> i128 {
        let mut sip = self.value;
        sip.write(&[VALUE]);
        sip.write(value);
        let hash = sip.finish128();
        (u128::from(hash.h1) << 64 | u128::from(hash.h2)).cast_signed()
    }
}

/// `SipHash`-1-3 with 128 bits of result, fed in words: no part is copied
/// together with others to be hashed.
#[derive(Clone, Copy, Debug)]
struct Sip([u64; 4]);

/// Longer parts say their length in a word of its own.
const SHORT_PART: usize = 0xff;

impl Sip {
    fn new(key: &[u8; 16]) -> Self {
        let (first, second) = key.split_at(8);
        let (first, second) = (word(first), word(second));
        Self([
            first ^ 0x736f_6d65_7073_6575,
            second ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            first ^ 0x6c79_6765_6e65_7261,
            second ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline]
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32).wrapping_add(*d);
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *d = d.rotate_left(21) ^ *a;
        *c = c.rotate_left(32);
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    /// The bytes, the last up to seven in a word that ends with the length.
    /// Read from the end, any row of parts can be told from any other.
    #[inline]
    fn part(&mut self, part: &[u8]) {
        let mut rest = part;
        while let Some((bytes, after)) = rest.split_first_chunk() {
            self.word(u64::from_le_bytes(*bytes));
            rest = after;
        }
        let last = match part.last_chunk::<8>() {
            // The end of the part, without what is in the words before.
            Some(end) => (u64::from_le_bytes(*end) >> 8) >> (56 - 8 * rest.len()),
            None => word(rest),
        };
        self.word(last | (part.len().min(SHORT_PART) as u64) << 56);
        if part.len() >= SHORT_PART {
            self.word(part.len() as u64 | 0xff << 56);
        }
    }

    #[inline]
    fn finish(mut self) -> (u64, u64) {
        self.0[2] ^= 0xee;
        let high = self.finalize();
        self.0[1] ^= 0xdd;
        (high, self.finalize())
    }

    #[inline]
    fn finalize(&mut self) -> u64 {
        (0..3).for_each(|_| self.round());
        self.0.iter().fold(0, |all, word| all ^ word)
    }
}

/// Whether two texts are equal; those of up to 16 bytes, as names are, without a call.
#[inline]
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match (
        one.first_chunk(),
        one.last_chunk(),
        other.first_chunk(),
        other.last_chunk(),
    ) {
        (Some(a), Some(b), Some(c), Some(d)) if one.len() <= 16 => {
            // Words that may overlap.
            let differ = |x: &[u8; 8], y: &[u8; 8]| u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
            differ(a, c) | differ(b, d) == 0
        }
        (None, ..) => word(one) == word(other),
        _ => one == other,
    }
}

/// Up to eight bytes, little-endian.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    match bytes {
        [] => 0,
        [a] => u64::from(*a),
        [a, b] => u64::from(u16::from_le_bytes([*a, *b])),
        [a, b, c] => u64::from(u32::from_le_bytes([*a, *b, *c, 0])),
        _ => {
            // Two reads of four bytes that may overlap.
            let low = bytes.first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
            let high = bytes.last_chunk().map_or(0, |four| u32::from_le_bytes(*four));
            u64::from(low) | u64::from(high) << (8 * (bytes.len() - 4))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_are_hashed_as_the_reference_does(key: [u8; 16], words: Vec<u64>) {
            let mut sip = Sip::new(&key);
            for word in &words { sip.word(*word); }
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            // The reference ends with the length of the whole.
            sip.word((bytes.len() as u64) << 56);
            let expected = SipHasher13::new_with_key(&key).hash(&bytes);
            prop_assert_eq!(sip.finish(), (expected.h1, expected.h2));
        }

        #[test]
        fn texts_are_the_same_or_not(one in prop::collection::vec(0_u8..3, 0..40), at: prop::sample::Index) {
            let mut other = one.clone();
            prop_assert!(same(&one, &other));
            prop_assert!(!same(&one, &[&one[..], &[0]].concat()));
            if !other.is_empty() {
                other[at.index(one.len())] ^= 0x80;
                prop_assert!(!same(&one, &other));
            }
        }

        #[test]
        fn a_word_is_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..=8)) {
            let mut padded = bytes.clone();
            padded.resize(8, 0);
            prop_assert_eq!(word(&bytes), u64::from_le_bytes(padded.try_into().unwrap_or_default()));
        }
    }

    #[test]
    fn no_two_rows_of_parts_are_the_same_words() {
        // Few bytes, among them those that lengths are written with.
        let texts: Vec<Vec<u8>> = [0, 1, 7, 8, 9, 16, 254, 255, 256, 263, 264, 511, 512]
            .into_iter()
            .flat_map(|length| [0, 1, 8, 0xff].map(|byte| vec![byte; length]))
            .collect();
        let mut seen = HashMap::new();
        let mut rows: Vec<Vec<&[u8]>> = texts.iter().map(|text| vec![&text[..]]).collect();
        rows.extend(
            texts
                .iter()
                .flat_map(|one| texts.iter().map(|two| vec![&one[..], &two[..]])),
        );
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            let mut sip = Sip::new(&[3; 16]);
            for part in &row {
                sip.part(part);
            }
            if let Some(other) = seen.insert(sip.finish(), row.clone()) {
                panic!("{other:?} and {row:?}");
            }
        }
    }
}

//! Tells of most absent keys that they are absent, in 18 bits per key.
//!
//! A binary fuse filter (Graf and Lemire, 2022): three places of 16 bits each,
//! whose exclusive or is the key's fingerprint. One absent key in 65,536 seems
//! to be there.

/// A filter over a set of keys.
#[derive(Debug, Default)]
pub struct Filter {
    seed: u64,
    /// A power of two.
    segment_length: u32,
    /// Of all segments that a first place may be in; those of the other two
    /// are the next two.
    span: u32,
    /// Empty: it knows nothing, and any key may be there.
    fingerprints: Vec<u16>,
}

const TRIES: u64 = 64;
/// Tries after which keys are suspected to be there twice.
const PATIENCE: u64 = 8;

impl Filter {
    /// A filter over these keys, in any order.
    pub fn build(keys: &[u64]) -> Self {
        let mut distinct;
        let mut keys = keys;
        for seed in 0..TRIES {
            if seed == PATIENCE {
                distinct = keys.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                keys = &distinct;
            }
            let mut filter = Self::shaped(keys.len(), mix(seed));
            if filter.fill(keys) {
                return filter;
            }
        }
        Self::default()
    }

    /// The sizes that the paper found, in whole numbers.
    fn shaped(count: usize, seed: u64) -> Self {
        let count = count.max(2);
        let bits = count.ilog2() as usize;
        let segment_length = 1 << ((bits * 576 + 2250) / 1000).min(18);
        let capacity = (count * 1125 / 1000).max(count * 875 / 1000 + count * 4983 / 1000 / bits);
        let segments = capacity.div_ceil(segment_length).max(3);
        let places = segments * segment_length;
        Self {
            seed,
            // Runs have far less than 2^32 places in a section.
            segment_length: u32::try_from(segment_length).unwrap_or(u32::MAX),
            span: u32::try_from(places - 2 * segment_length).unwrap_or(u32::MAX),
            fingerprints: vec![0; places],
        }
    }

    /// Takes away, again and again, a key that alone has one of its places;
    /// then gives each that place, the last one first. False if keys are left.
    fn fill(&mut self, keys: &[u64]) -> bool {
        let mut counts = vec![0_u32; self.fingerprints.len()];
        let mut hashes = vec![0_u64; self.fingerprints.len()];
        for key in keys {
            let hash = self.hash(*key);
            for place in self.places(hash) {
                counts[place] += 1;
                hashes[place] ^= hash;
            }
        }
        let mut alone: Vec<usize> = (0..counts.len()).filter(|&place| counts[place] == 1).collect();
        let mut order = Vec::with_capacity(keys.len());
        while let Some(place) = alone.pop() {
            if counts[place] != 1 {
                continue;
            }
            let hash = hashes[place];
            order.push((hash, place));
            for other in self.places(hash) {
                counts[other] -= 1;
                hashes[other] ^= hash;
                if counts[other] == 1 {
                    alone.push(other);
                }
            }
        }
        for &(hash, place) in order.iter().rev() {
            // The place itself still is 0.
            self.fingerprints[place] = fingerprint(hash) ^ self.at(hash);
        }
        order.len() == keys.len()
    }

    /// False if the key is certainly not there.
    #[inline]
    pub fn may_hold(&self, key: u64) -> bool {
        if self.fingerprints.is_empty() {
            return true;
        }
        let hash = self.hash(key);
        fingerprint(hash) == self.at(hash)
    }

    #[inline]
    fn at(&self, hash: u64) -> u16 {
        self.places(hash)
            .iter()
            .fold(0, |sum, &place| sum ^ self.fingerprints[place])
    }

    #[inline]
    fn hash(&self, key: u64) -> u64 {
        mix(key.wrapping_add(self.seed))
    }

    #[inline]
    fn places(&self, hash: u64) -> [usize; 3] {
        // Less than the span, which is a u32.
        let first =
            u32::try_from((u128::from(hash) * u128::from(self.span)) >> u64::BITS).unwrap_or_default();
        let mask = u64::from(self.segment_length - 1);
        // Masked to a segment's length, which is a u32.
        let within = |bits: u64| u32::try_from(bits & mask).unwrap_or_default();
        let second = (first + self.segment_length) ^ within(hash >> 18);
        let third = (first + 2 * self.segment_length) ^ within(hash);
        [first as usize, second as usize, third as usize]
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.fingerprints.capacity() * size_of::<u16>()
    }

    /// Seed, length of a segment, span, fingerprints; little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.segment_length.to_le_bytes());
        out.extend_from_slice(&self.span.to_le_bytes());
        for fingerprint in &self.fingerprints {
            out.extend_from_slice(&fingerprint.to_le_bytes());
        }
    }

    /// None if the bytes are no filter.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (seed, rest) = bytes.split_first_chunk()?;
        let (segment_length, rest) = rest.split_first_chunk()?;
        let (span, rest) = rest.split_first_chunk()?;
        let places = rest.chunks_exact(size_of::<u16>());
        let odd = places.remainder();
        let filter = Self {
            seed: u64::from_le_bytes(*seed),
            segment_length: u32::from_le_bytes(*segment_length),
            span: u32::from_le_bytes(*span),
            fingerprints: places
                .map(|place| u16::from_le_bytes([place[0], place[1]]))
                .collect(),
        };
        let wanted = u64::from(filter.span) + 2 * u64::from(filter.segment_length);
        // Or a key's places would be none of these.
        let shaped = filter.segment_length.is_power_of_two()
            && filter.span > 0
            && filter.span.is_multiple_of(filter.segment_length);
        let whole = odd.is_empty()
            && (filter.fingerprints.is_empty() || shaped)
            && wanted == filter.fingerprints.len() as u64;
        whole.then_some(filter)
    }
}

fn fingerprint(hash: u64) -> u16 {
    // The low half of the fold.
    u16::try_from((hash ^ hash >> 32) & 0xffff).unwrap_or_default()
}

/// The finalizer of `MurmurHash3`.
#[inline]
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_missed_and_little_is_mistaken() {
        for count in [0_u64, 1, 2, 3, 10, 1000, 524_288] {
            let keys: Vec<u64> = (0..count).map(mix).collect();
            let filter = Filter::build(&keys);
            assert!(keys.iter().all(|key| filter.may_hold(*key)), "{count}");
            let mistaken = (count..count + 1_000_000)
                .filter(|key| filter.may_hold(mix(*key)))
                .count();
            assert!(mistaken < 100, "{mistaken} of a million at {count}");
        }
    }

    #[test]
    fn a_section_takes_less_than_two_and_a_third_bytes_per_key() {
        let keys: Vec<u64> = (0..524_288).map(mix).collect();
        let filter = Filter::build(&keys);
        assert!(!filter.fingerprints.is_empty());
        assert!(filter.bytes() * 3 < keys.len() * 7, "{}", filter.bytes());
    }

    #[test]
    fn what_is_read_back_is_what_was_written() {
        let keys: Vec<u64> = (0..5000).map(mix).collect();
        let mut bytes = Vec::new();
        Filter::build(&keys).encode(&mut bytes);
        let filter = Filter::decode(&bytes).unwrap();
        assert!(keys.iter().all(|key| filter.may_hold(*key)));
        assert!(Filter::decode(&bytes[..bytes.len() - 2]).is_none());
        assert!(Filter::decode(&bytes[..bytes.len() - 1]).is_none());
    }

    proptest! {
        #[test]
        fn no_key_is_missed(keys in prop::collection::vec(0..300_u64, 0..400)) {
            let filter = Filter::build(&keys);
            for key in keys {
                prop_assert!(filter.may_hold(key));
            }
        }
    }
}

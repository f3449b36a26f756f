//! A sum that cannot overflow: 192 bits, two's complement.

use crate::error::{EngineError, Reason};
use crate::meter::Quantity;

/// First quantity with more than 26 integer digits.
const LIMIT: Quantity = 10_i128.pow(38);

/// Bytes of a `Wide`.
pub const WIDE_BYTES: usize = 24;

/// A 192-bit integer. 2^64 quantities of any sign can be added before it wraps, so that adding is
/// associative where an i128 would overflow in one order and not in another. Three words rather
/// than an i128 and one more keep partials free of 16-byte alignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wide {
    high: i64,
    middle: u64,
    low: u64,
}

impl From<i128> for Wide {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "takes the words of the two's complement"
    )]
    #[inline]
    fn from(value: i128) -> Self {
        Self {
            high: (value >> 127) as i64,
            middle: (value >> 64) as u64,
            low: value as u64,
        }
    }
}

impl Wide {
    /// The sum of two.
    #[must_use]
    #[inline]
    pub fn plus(self, other: Self) -> Self {
        let (low, carry) = self.low.overflowing_add(other.low);
        let (middle, first) = self.middle.overflowing_add(other.middle);
        let (middle, second) = middle.overflowing_add(u64::from(carry));
        let high = self
            .high
            .wrapping_add(other.high)
            .wrapping_add(i64::from(first | second));
        Self { high, middle, low }
    }

    /// As an i128, if it fits.
    #[must_use]
    pub fn narrow(self) -> Option<i128> {
        let low = i128::from_le_bytes(self.words().0);
        (i128::from(self.high) == low >> 127).then_some(low)
    }

    /// As a quantity.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` beyond 26 integer digits.
    pub fn quantity(self) -> Result<Quantity, EngineError> {
        match self.narrow() {
            Some(value) if -LIMIT < value && value < LIMIT => Ok(value),
            _ => Err(EngineError::new(
                Reason::OutOfRange,
                "the sum has more than 26 integer digits",
            )),
        }
    }

    /// Divides, rounding half away from zero; 0 for a divisor of 0.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` when the result has more than 26 integer digits.
    pub fn average(self, count: u64) -> Result<Quantity, EngineError> {
        let Some(count) = std::num::NonZeroU64::new(count) else {
            return Ok(0);
        };
        let divisor = u128::from(count.get());
        let magnitude = if self.high < 0 { self.negated() } else { self };
        let mut rest = 0_u128;
        let mut quotient = [0_u64; 3];
        let words = [
            u64::from_le_bytes(magnitude.high.to_le_bytes()),
            magnitude.middle,
            magnitude.low,
        ];
        for (digit, word) in quotient.iter_mut().zip(words) {
            let dividend = rest << 64 | u128::from(word);
            // The rest is below the divisor, hence the digit below 2^64.
            *digit = u64::try_from(dividend / divisor).unwrap_or(u64::MAX);
            rest = dividend % divisor;
        }
        let [high, middle, low] = quotient;
        let quotient = Self {
            high: i64::from_le_bytes(high.to_le_bytes()),
            middle,
            low,
        };
        let rounded = quotient.plus(Self::from(i128::from(rest * 2 >= divisor)));
        if self.high < 0 { rounded.negated() } else { rounded }.quantity()
    }

    /// Little-endian bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; WIDE_BYTES] {
        let mut bytes = [0; WIDE_BYTES];
        let (low, high) = self.words();
        bytes[..16].copy_from_slice(&low);
        bytes[16..].copy_from_slice(&high);
        bytes
    }

    /// Reads what `to_bytes` made.
    #[must_use]
    pub fn from_bytes(bytes: [u8; WIDE_BYTES]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Self {
            high: i64::from_le_bytes(word(16).to_le_bytes()),
            middle: word(8),
            low: word(0),
        }
    }

    fn words(self) -> ([u8; 16], [u8; 8]) {
        let low = u128::from(self.middle) << 64 | u128::from(self.low);
        (low.to_le_bytes(), self.high.to_le_bytes())
    }

    fn negated(self) -> Self {
        Self {
            high: !self.high,
            middle: !self.middle,
            low: !self.low,
        }
        .plus(Self::from(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wide_keeps_every_i128(value: i128) {
            prop_assert_eq!(Wide::from(value).narrow(), Some(value));
            prop_assert_eq!(Wide::from_bytes(Wide::from(value).to_bytes()), Wide::from(value));
        }

        #[test]
        fn wides_order_and_add_as_integers_do(a: i64, b: i64, c: i128, d: i128) {
            let sum = Wide::from(i128::from(a)).plus(Wide::from(i128::from(b)));
            prop_assert_eq!(sum.narrow(), Some(i128::from(a) + i128::from(b)));
            prop_assert_eq!(Wide::from(c).cmp(&Wide::from(d)), c.cmp(&d));
            prop_assert_eq!(Wide::from(c).plus(Wide::from(d)).narrow(), c.checked_add(d));
        }

        #[test]
        fn averages_round_half_away_from_zero(sum in -(1_i128 << 100)..(1_i128 << 100), count in 1_u64..1_000_000) {
            let divisor = i128::from(count);
            let magnitude = (2 * sum.abs() + divisor) / (2 * divisor);
            prop_assert_eq!(Wide::from(sum).average(count), Ok(sum.signum() * magnitude));
        }
    }

    #[test]
    fn a_sum_beyond_26_digits_is_out_of_range_until_it_comes_back() {
        let greatest = Wide::from(LIMIT - 1);
        assert_eq!(greatest.quantity(), Ok(LIMIT - 1));
        let beyond = greatest.plus(greatest).plus(greatest);
        assert_eq!(beyond.narrow(), None);
        assert_eq!(
            beyond.quantity().map_err(|error| error.reason),
            Err(Reason::OutOfRange)
        );
        assert_eq!(beyond.average(3), Ok(LIMIT - 1));
        let back = beyond.plus(Wide::from(1 - LIMIT)).plus(Wide::from(1 - LIMIT));
        assert_eq!(back.quantity(), Ok(LIMIT - 1));
    }
}

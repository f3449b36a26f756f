//! Decimal text to a scaled integer and back: exact or not at all.

use crate::meter::Quantity;

/// Fractional digits of a quantity.
pub const FRACTION_DIGITS: usize = 12;
/// Integer digits of a quantity, leading zeros aside.
pub const INTEGER_DIGITS: usize = 26;
/// 10^12: a quantity of 1.
pub const SCALE: Quantity = 1_000_000_000_000;
/// Longer texts are refused unread, whatever zeros they hold.
const MAX_TEXT: usize = 64;

const POWERS: [u64; FRACTION_DIGITS + 1] = {
    let mut powers = [1; FRACTION_DIGITS + 1];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Reads `[+-]digits[.digits]`; one side of the point may be empty. At most 26
/// integer digits after leading zeros and 12 fractional ones; no exponent, no
/// spaces. None for anything else: a quantity is never rounded.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Quantity> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    };
    let point = unsigned.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
        None => (unsigned, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() || fraction.len() > FRACTION_DIGITS {
        return None;
    }
    let whole = digits(whole, INTEGER_DIGITS)?;
    let fraction_value = digits(fraction, FRACTION_DIGITS)?;
    let scaled = whole * SCALE + fraction_value * Quantity::from(POWERS[FRACTION_DIGITS - fraction.len()]);
    Some(if negative { -scaled } else { scaled })
}

/// Value of at most `limit` digits after leading zeros; None for other bytes.
fn digits(text: &[u8], limit: usize) -> Option<Quantity> {
    if text.len() <= 18 {
        // Nearly every quantity: stays in one register.
        return small(text).map(Quantity::from);
    }
    let zeros = text.iter().take_while(|&&byte| byte == b'0').count();
    let text = &text[zeros..];
    if text.len() > limit {
        return None;
    }
    text.chunks(18).try_fold(0, |value: Quantity, chunk| {
        let power = 10_i128.pow(u32::try_from(chunk.len()).ok()?);
        Some(value * power + Quantity::from(small(chunk)?))
    })
}

/// Value of at most 18 digits.
fn small(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + u64::from(digit))
    })
}

/// The shortest text that `parse` reads back as the same quantity.
#[must_use]
pub fn format(quantity: Quantity) -> String {
    let sign = if quantity < 0 { "-" } else { "" };
    let scale = SCALE.unsigned_abs();
    let (whole, fraction) = (quantity.unsigned_abs() / scale, quantity.unsigned_abs() % scale);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:012}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_is_a_decimal() {
        for (text, scaled) in [
            ("0", 0),
            ("-0", 0),
            ("+7", 7 * SCALE),
            ("1.", SCALE),
            (".5", SCALE / 2),
            ("-0.000000000001", -1),
            ("000000000000000000000000000000000001.25", SCALE * 5 / 4),
            ("99999999999999999999999999.999999999999", 10_i128.pow(38) - 1),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(scaled), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = "0".repeat(65);
        for text in [
            "",
            "+",
            "-",
            ".",
            "-.",
            "1e3",
            " 1",
            "1 ",
            "1_0",
            "1,0",
            "NaN",
            "inf",
            "--1",
            "1.2.3",
            "0x1",
            "٣",
            "1.0000000000000",
            "100000000000000000000000000",
            "1a000000000000000000000",
            &long,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn format_and_parse_are_inverse(quantity in -(10_i128.pow(38) - 1)..10_i128.pow(38)) {
            prop_assert_eq!(parse(format(quantity).as_bytes()), Some(quantity));
        }

        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&text);
        }

        #[test]
        fn agrees_with_the_digits(whole in "[0-9]{1,26}", fraction in "[0-9]{0,12}") {
            let expected: i128 = format!("{whole}{fraction:0<12}").parse().unwrap();
            prop_assert_eq!(parse(format!("{whole}.{fraction}").as_bytes()), Some(expected));
        }
    }
}

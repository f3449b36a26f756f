"""Decimal quantities: at most 26 integer and 12 fractional digits, never a float."""

import re
from decimal import Context, Decimal, localcontext

from ammeter.errors import invalid

SCALE_DIGITS = 12
INTEGER_DIGITS = 26

_FORM = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_MAX_TEXT = 64
_PRECISION = 80
_WIDE = Context(prec=_PRECISION)


def parse_decimal(text: str, field: str) -> Decimal:
    """Read a decimal; raises InvalidInputError naming `field` for anything else."""
    match = _FORM.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if match is None:
        raise invalid(
            field, f"is not a decimal number: {text[:_MAX_TEXT]!r}; write digits with at most one point"
        )
    integer, _, fraction = match[1].partition(".")
    if len(integer.lstrip("0")) > INTEGER_DIGITS or len(fraction) > SCALE_DIGITS:
        raise invalid(
            field, f"has too many digits: at most {INTEGER_DIGITS} before the point and {SCALE_DIGITS} after"
        )
    return Decimal(text)


def from_scaled(scaled: int) -> Decimal:
    """Turn an int scaled by 10**12 into a decimal, exactly."""
    return _WIDE.scaleb(Decimal(scaled), -SCALE_DIGITS)


def to_scaled(value: Decimal) -> int:
    """Turn a decimal of at most 12 fractional digits into an int scaled by 10**12."""
    with localcontext(prec=_PRECISION):
        scaled = value.scaleb(SCALE_DIGITS)
        if scaled != scaled.to_integral_value():
            message = f"{value} has more than {SCALE_DIGITS} fractional digits"
            raise ValueError(message)
        return int(scaled)


def decimal_text(value: Decimal) -> str:
    """Write a decimal plainly: no exponent, no trailing zeros, "0" for zero."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text

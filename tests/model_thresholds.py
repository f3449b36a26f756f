"""The obvious slow reading of thresholds: fractions, and a journal that remembers all it said."""

from fractions import Fraction


def reached(kind: str, level: Fraction | None, *, percent: bool, usage: Fraction, left: Fraction) -> bool:
    """Whether what a rule is about is so, in one look."""
    if kind == "EXHAUSTED":
        return left <= 0
    assert level is not None
    value = usage if kind == "USAGE" else left
    if percent:
        total = usage + left
        if total <= 0:
            # Of nothing, any use is more than every share; what is left is none.
            return usage > 0 if kind == "USAGE" else (value <= 0 if kind == "LOW_BALANCE" else value >= 0)
        value = value / total * 100
    if kind == "USAGE":
        return usage > 0 and value >= level
    return value <= level if kind == "LOW_BALANCE" else value >= level

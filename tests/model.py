"""The oracle: what the answers must be, computed the slow and obvious way, with exact rationals.

One section for each part of the semantics; nothing here imports ammeter.
"""

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

# --- Periods and prices -------------------------------------------------------


def wall_to_utc(wall: datetime, zone: ZoneInfo) -> datetime:
    """Walk through the minutes until the zone's clock shows `wall`, or has jumped over it."""
    instant = wall.replace(tzinfo=UTC) - timedelta(hours=15)
    while (shown := instant.astimezone(zone).replace(tzinfo=None)) < wall:
        before, instant = shown, instant + timedelta(minutes=1)
    gap_start = before + timedelta(minutes=1)
    return instant if shown == wall else instant + (wall - gap_start)


def boundary_days(anchor: date, cadence: str, first: date, last: date) -> list[date]:
    """Look at every day: is it one that a period begins on?"""
    count, unit = int(cadence[1:-1]), cadence[-1]
    found = []
    day = first
    while day <= last:
        if unit in "DW":
            due = (day - anchor).days % (count * (7 if unit == "W" else 1)) == 0
        else:
            months = (day.year - anchor.year) * 12 + day.month - anchor.month
            month_ends = (day + timedelta(days=1)).month != day.month
            on_day = day.day == anchor.day or (day.day < anchor.day and month_ends)
            due = on_day and months % (count * (12 if unit == "Y" else 1)) == 0
        if due:
            found.append(day)
        day += timedelta(days=1)
    return found


def period_boundaries(
    anchor: datetime, zone: ZoneInfo, cadence: str, first: datetime, last: datetime
) -> list[datetime]:
    """All boundaries of the days around [first, last]; a skipped day gives the same one twice."""
    local = anchor.astimezone(zone).replace(tzinfo=None)
    days = boundary_days(local.date(), cadence, first.date(), last.date())
    return [
        anchor if day == local.date() else wall_to_utc(datetime.combine(day, local.time()), zone) for day in days
    ]


def rounded(amount: Fraction, exponent: int) -> Fraction:
    """Count up in the smallest coin until the next one is too much; half goes away from zero."""
    coin = Fraction(1, 10**exponent)
    coins = abs(amount) // coin
    if abs(amount) - coins * coin >= coin / 2:
        coins += 1
    return coins * coin * (-1 if amount < 0 else 1)


def flat_amount(amount: Fraction, covered_seconds: int, full_seconds: int, exponent: int) -> Fraction:
    return rounded(amount * covered_seconds / full_seconds, exponent)


def unit_amount(price: Fraction, quantity: Fraction, exponent: int) -> Fraction:
    return rounded(price * quantity, exponent)

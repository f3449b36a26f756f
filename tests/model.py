"""The oracle: what the answers must be, computed the slow and obvious way, with exact rationals.

One section for each part of the semantics; nothing here imports ammeter.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any
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
        anchor if day == local.date() else wall_to_utc(datetime.combine(day, local.time()), zone)
        for day in days
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


# --- Prices by usage --------------------------------------------------------------
# A rate card is what an operator writes: nested dicts of text, by the names of the proto.

Card = Mapping[str, Any]


def rated(
    card: Card,
    used: Fraction,
    events: int = 0,
    groups: Mapping[tuple[str, ...], Fraction] | None = None,
    exponent: int = 2,
    *,
    last: bool = True,
) -> Fraction:
    """What a rate card's usage in a period costs, all of it taken together."""
    ((kind, price),) = card["price"].items()
    if kind == "matrix":
        amount = sum(
            (cell_amount(price, values, converted(card, n)) for values, n in (groups or {}).items()),
            Fraction(),
        )
    else:
        units = converted(card, used)
        free_units = Fraction(card.get("discounts", {}).get("usage_quantity", 0))
        billable = units if units < 0 else max(units - free_units, Fraction())
        amount = usage_amount(kind, price, billable, events)
    amount *= 1 - Fraction(card.get("discounts", {}).get("percentage", 0)) / 100
    bounds = card.get("commitments", {})
    if "maximum_amount" in bounds:
        amount = min(amount, Fraction(bounds["maximum_amount"]))
    if "minimum_amount" in bounds and last:
        amount = max(amount, Fraction(bounds["minimum_amount"]))
    return rounded(amount, exponent)


def converted(card: Card, used: Fraction) -> Fraction:
    """From what was metered to what is priced."""
    wanted = card.get("unit_conversion", {})
    units = used * Fraction(wanted.get("multiply_by", 1)) / Fraction(wanted.get("divide_by", 1))
    if "rounding" not in wanted:
        return units
    digits: int = wanted.get("precision", 0)
    step = Fraction(1, 10**digits)
    below: Fraction = units // step * step
    if wanted["rounding"] == "half_up":
        return half_away(units, digits)
    return below if units == below or wanted["rounding"] == "floor" else below + step


def usage_amount(kind: str, price: Card, units: Fraction, events: int) -> Fraction:
    """What units cost without what is around the price."""
    if kind == "unit":
        return units * Fraction(price["unit_amount"])
    if kind == "dynamic":
        return units * Fraction(price["multiplier"])
    if kind == "package":
        packages = 0
        while packages * Fraction(price["package_size"]) < units:
            packages += 1
        return packages * Fraction(price["package_amount"])
    if kind == "percentage":
        fees: Fraction = Fraction(price.get("event_amount", 0)) * max(
            events - price.get("free_event_count", 0), 0
        )
        taxable = units if units < 0 else max(units - Fraction(price.get("free_amount", 0)), Fraction())
        return taxable * Fraction(price["percentage"]) / 100 + fees
    return (
        volume_amount(price["tiers"], units) if kind == "volume" else graduated_amount(price["tiers"], units)
    )


def per_unit(tier: Card) -> Fraction:
    return Fraction(tier.get("unit_amount", 0)) + Fraction(tier.get("percentage", 0)) / 100


def volume_amount(tiers: Sequence[Card], units: Fraction) -> Fraction:
    """From the last tier down: the lowest that still holds all units."""
    chosen = tiers[-1]
    for tier in reversed(tiers[:-1]):
        if units <= Fraction(tier["up_to"]):
            chosen = tier
    return units * per_unit(chosen) + Fraction(chosen.get("flat_amount", 0))


def graduated_amount(tiers: Sequence[Card], units: Fraction) -> Fraction:
    """Empty the tiers from the top: what lies above a bound costs what the tier there says."""
    bounds = [Fraction(0), *(Fraction(tier["up_to"]) for tier in tiers[:-1])]
    amount, left = Fraction(), units
    for bound, tier in zip(bounds[:0:-1], tiers[:0:-1], strict=True):
        if left > bound:
            amount += (left - bound) * per_unit(tier) + Fraction(tier.get("flat_amount", 0))
            left = bound
    return amount + left * per_unit(tiers[0]) + Fraction(tiers[0].get("flat_amount", 0))


def cell_amount(matrix: Card, values: tuple[str, ...], units: Fraction) -> Fraction:
    for cell in matrix.get("cells", ()):
        if tuple(cell["values"]) == values:
            return units * Fraction(cell["unit_amount"])
    return units * Fraction(matrix["default_unit_amount"])


def missing_to_minimum(minimum: Fraction, charged: Fraction) -> Fraction:
    """What a plan's minimum adds to a period."""
    return Fraction(0) if charged >= minimum else minimum - charged


# --- Price lists ------------------------------------------------------------------


@dataclass(frozen=True)
class ListedPrice:
    """What a unit of a model costs from a minute on; None: withdrawn."""

    model: str
    minute: int
    amount: Fraction | None
    override: bool = False


def listed_at(entries: Sequence[ListedPrice], model: str, minute: int) -> Fraction | None:
    """Of the last entries by then, the one above; else the one below."""
    for above in (True, False):
        past = [e for e in entries if (e.model, e.override) == (model, above) and e.minute <= minute]
        if past and (last := max(past, key=lambda e: e.minute)).amount is not None:
            return last.amount
    return None


def llm_unit_price(price: Card, entries: Sequence[ListedPrice], model: str, minute: int) -> Fraction | None:
    """What a rate card charges for a unit of a model in a minute; None: it has no price."""
    for own in price.get("overrides", ()):
        if own["model"] == model:
            return Fraction(own["unit_amount"])
    cost = listed_at(entries, model, minute)
    if cost is None:
        return Fraction(price["default_unit_amount"]) if "default_unit_amount" in price else None
    cost *= 1 + Fraction(price.get("margin_percentage", 0)) / 100
    return cost + Fraction(price.get("margin_amount", 0))


def llm_rated(
    card: Card,
    entries: Sequence[ListedPrice],
    uses: Sequence[tuple[int, str, Fraction]],
    minutes: range,
    exponent: int,
) -> tuple[Fraction, set[str]]:
    """Walk minute by minute; each stretch of a model at one price is converted and charged by itself.

    Returns the amount, and the models that have no price.
    """
    ((_, price),) = card["price"].items()
    amount, unpriced = Fraction(), set()
    for model in {model for _, model, _ in uses}:
        stretches: list[tuple[Fraction | None, Fraction]] = []
        for minute in minutes:
            unit = llm_unit_price(price, entries, model, minute)
            used = sum((q for m, name, q in uses if (m, name) == (minute, model)), Fraction())
            if stretches and stretches[-1][0] == unit:
                stretches[-1] = (unit, stretches[-1][1] + used)
            else:
                stretches.append((unit, used))
        for unit, used in stretches:
            if unit is not None:
                amount += unit * converted(card, used)
            elif used:
                unpriced.add(model)
    amount *= 1 - Fraction(card.get("discounts", {}).get("percentage", 0)) / 100
    bounds = card.get("commitments", {})
    if "maximum_amount" in bounds:
        amount = min(amount, Fraction(bounds["maximum_amount"]))
    if "minimum_amount" in bounds:
        amount = max(amount, Fraction(bounds["minimum_amount"]))
    return rounded(amount, exponent), unpriced


# --- Prices agreed on with one customer -------------------------------------------


def agreed_stretches(
    found: Sequence[tuple[int, int | None, str]], minutes: range
) -> list[tuple[int, int, str | None]]:
    """Walk minute by minute: [from, to) with the name of the override that holds; None: the rate card."""
    stretches: list[tuple[int, int, str | None]] = []
    for minute in minutes:
        names = [name for start, end, name in found if start <= minute and (end is None or minute < end)]
        name = names[0] if names else None
        if stretches and stretches[-1][2] == name:
            stretches[-1] = (stretches[-1][0], minute + 1, name)
        else:
            stretches.append((minute, minute + 1, name))
    return stretches


# --- Coupons ----------------------------------------------------------------------


def coupon_discounts(
    found: Sequence[tuple[str, Fraction]], costs: Mapping[str, Fraction], exponent: int
) -> list[dict[str, Fraction]]:
    """What each coupon, ("percentage" or "amount", how much), takes off each feature's cost in a period.

    Each takes its part of what those before left of the whole; a feature bears
    what the rounded running sum grows by.
    """
    left = dict(sorted(costs.items()))
    answer = []
    for kind, number in found:
        whole = max(sum(left.values(), Fraction()), Fraction())
        off = min(number, whole) if kind == "amount" else rounded(whole * number / 100, exponent)
        bearing = {name: cost for name, cost in left.items() if cost > 0}
        positive, running, spent, shares = sum(bearing.values(), Fraction()), Fraction(), Fraction(), {}
        for name, cost in bearing.items():
            running += cost
            share = rounded(off * running / positive, exponent) - spent
            spent += share
            left[name] -= share
            shares[name] = share
        answer.append(shares)
    return answer


# --- Taxes and credit notes ----------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """A tax rate on the lines at these places of an invoice."""

    percentage: Fraction
    inclusive: bool
    places: frozenset[int]


def tax(amounts: Sequence[Fraction], rates: Sequence[Rate], rate: Rate, exponent: int) -> Fraction:
    """Cut each line into its net and its taxes, add the parts of this rate up, round the sum."""
    exact = Fraction(0)
    for place in rate.places:
        within = sum(each.percentage for each in rates if each.inclusive and place in each.places)
        net = amounts[place] / (1 + Fraction(within) / 100) if rate.inclusive else amounts[place]
        exact += net * rate.percentage / 100
    return rounded(exact, exponent)


# --- Decimals -------------------------------------------------------------------

_DIGITS = frozenset("0123456789")


def quantity(text: str) -> Fraction | None:
    """A decimal with up to 26 digits before the point and 12 after; None for anything else."""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    whole, _, fraction = unsigned.partition(".")
    digits = whole + fraction
    if not digits or not set(digits) <= _DIGITS or len(text) > 64:
        return None
    if len(whole.lstrip("0")) > 26 or len(fraction) > 12:
        return None
    value = Fraction(int(digits), 10 ** len(fraction))
    return -value if text.startswith("-") else value


# --- Events and their identity ----------------------------------------------------


@dataclass(frozen=True)
class Event:
    """What a sender says; `time` is (seconds, nanos) since the epoch, None if left out."""

    id: str
    source: str
    type: str
    subject: str
    time: tuple[int, int] | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> tuple[object, ...]:
        """All that is not identity; times count to the microsecond."""
        time = None if self.time is None else self.time[0] * 1_000_000 + self.time[1] // 1000
        return (self.type, self.subject, time, sorted(self.properties.items()))


@dataclass(frozen=True)
class Meter:
    """As the operator defines it; filters are (property, operator, values)."""

    key: str
    event_type: str
    aggregation: str
    value_property: str = ""
    dimensions: tuple[str, ...] = ()
    filters: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Counted:
    """An accepted event, and when it happened in microseconds."""

    event: Event
    time_us: int


def faults(event: Event, now_us: int, past_us: int, future_us: int, meters: Iterable[Meter]) -> set[str]:
    """Every reason for which an event may be rejected; empty: none."""
    found = set()
    for text in (event.id, event.source, event.type, event.subject):
        if not text:
            found.add("EVENT_FIELD_MISSING")
        if len(text.encode()) > 256:
            found.add("EVENT_TOO_LARGE")
    if len(event.properties) > 64:
        found.add("EVENT_TOO_LARGE")
    if event.time is not None:
        seconds, nanos = event.time
        if not (-62_135_596_800 <= seconds <= 253_402_300_799 and 0 <= nanos <= 999_999_999):
            return found | {"EVENT_INVALID_TIME"}
        time_us = seconds * 1_000_000 + nanos // 1000
        if time_us < now_us - past_us:
            found.add("EVENT_TOO_OLD")
        if time_us > now_us + future_us:
            found.add("EVENT_IN_FUTURE")
    if any(applies(meter, event) and measured(meter, event) is None for meter in meters):
        found.add("EVENT_INVALID_VALUE")
    return found


class Ledger:
    """Which events count: the first of each identity, in order of arrival."""

    def __init__(self, past_us: int, future_us: int) -> None:
        self.past_us = past_us
        self.future_us = future_us
        self.counted: list[Counted] = []
        self.first: dict[tuple[str, str], Event] = {}

    def judge(self, event: Event, now_us: int, meters: Iterable[Meter]) -> tuple[str, set[str]]:
        """The outcome, with the reasons that a rejection may give; an accepted event is counted."""
        reasons = faults(event, now_us, self.past_us, self.future_us, meters)
        if reasons:
            return "REJECTED", reasons
        standing = self.first.get((event.source, event.id))
        if standing is not None:
            return ("DUPLICATE" if standing.content() == event.content() else "CONFLICT"), set()
        self.first[event.source, event.id] = event
        time_us = now_us if event.time is None else event.time[0] * 1_000_000 + event.time[1] // 1000
        self.counted.append(Counted(event, time_us))
        return "ACCEPTED", set()

    def forget_after(self, count: int) -> None:
        """Lose the events that had not become durable."""
        for lost in self.counted[count:]:
            del self.first[lost.event.source, lost.event.id]
        del self.counted[count:]


# --- Meters -----------------------------------------------------------------------


def passes(name: str, operator: str, values: tuple[str, ...], properties: Mapping[str, str]) -> bool:
    """Whether one condition of a meter holds."""
    if operator == "EXISTS":
        return name in properties
    if operator == "NOT_EQUALS":
        return properties.get(name) != values[0]
    return name in properties and properties[name] in (values[:1] if operator == "EQUALS" else values)


def applies(meter: Meter, event: Event) -> bool:
    """Whether a meter looks at an event at all."""
    if event.type != meter.event_type:
        return False
    if not all(passes(*condition, event.properties) for condition in meter.filters):
        return False
    if meter.aggregation == "UNIQUE_COUNT":
        return event.properties.get(meter.value_property, "") != ""
    return meter.aggregation == "COUNT" or meter.value_property in event.properties


def measured(meter: Meter, event: Event) -> Fraction | str | None:
    """The value that a meter takes from an event that it applies to; None if that is no number."""
    if meter.aggregation == "COUNT":
        return Fraction(1)
    text = event.properties[meter.value_property]
    return text if meter.aggregation == "UNIQUE_COUNT" else quantity(text)


def half_away(value: Fraction, digits: int) -> Fraction:
    scaled = abs(value) * 10**digits
    whole = scaled.numerator // scaled.denominator
    if scaled - whole >= Fraction(1, 2):
        whole += 1
    return Fraction(whole if value >= 0 else -whole, 10**digits)


def aggregate(aggregation: str, observed: list[tuple[int, Fraction | str]]) -> Fraction:
    """One number of (time, value) pairs that are in order of arrival."""
    values = [value for _, value in observed]
    if aggregation in ("COUNT", "UNIQUE_COUNT"):
        return Fraction(len(values) if aggregation == "COUNT" else len(set(values)))
    numbers = [value for value in values if isinstance(value, Fraction)]
    if aggregation == "LATEST":
        latest = max(time for time, _ in observed)
        return [number for (time, _), number in zip(observed, numbers, strict=True) if time == latest][-1]
    if aggregation == "AVG":
        return half_away(sum(numbers, Fraction()) / len(numbers), 12)
    return {
        "SUM": lambda: sum(numbers, Fraction()),
        "MIN": lambda: min(numbers),
        "MAX": lambda: max(numbers),
    }[aggregation]()


# --- Windows and queries ------------------------------------------------------------

Owners = Mapping[str, Sequence[tuple[int, int, str]]]
Row = tuple[int, int, tuple[str, ...], Fraction | None, int]


def window_edges(from_minute: int, to_minute: int, size: str, zone: ZoneInfo) -> list[int]:
    """Look at every minute: does the zone's clock begin another window there?"""
    edges = [from_minute]
    shown = window_label(from_minute, size, zone)
    for minute in range(from_minute + 1, to_minute):
        before, shown = shown, window_label(minute, size, zone)
        if shown != before:
            edges.append(minute)
    return [*edges, to_minute]


def window_label(minute: int, size: str, zone: ZoneInfo) -> object:
    """What all minutes of a window have in common, and those of the next have not."""
    if size in ("TOTAL", "MINUTE"):
        return minute if size == "MINUTE" else None
    local = datetime.fromtimestamp(minute * 60, UTC).astimezone(zone)
    if size == "HOUR":
        # The last minute at which the clock showed a full hour.
        while local.minute:
            minute -= 1
            local = datetime.fromtimestamp(minute * 60, UTC).astimezone(zone)
        return minute
    day = local.date()
    if size == "WEEK":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if size == "MONTH" else day


def owner(owners: Owners, subject: str, minute: int) -> str:
    """Who pays for a subject's use at a minute; "" if nobody."""
    return next((key for first, end, key in owners.get(subject, ()) if first <= minute < end), "")


def usage(
    counted: Iterable[Counted],
    meter: Meter,
    edges: Sequence[int],
    *,
    group_by: Sequence[str] = (),
    filters: Sequence[tuple[str, Sequence[str]]] = (),
    subjects: Sequence[str] = (),
    customers: Sequence[str] = (),
    owners: Owners | None = None,
) -> list[Row]:
    """Rows (from, to, group values, value, events), ordered by window and group."""
    cells: dict[tuple[int, tuple[str, ...]], list[tuple[int, Fraction | str]]] = {}
    for one in counted:
        event, minute = one.event, one.time_us // 60_000_000
        value = measured(meter, event) if applies(meter, event) else None
        who = owner(owners or {}, event.subject, minute)
        if value is None or not edges[0] <= minute < edges[-1]:
            continue
        if (subjects and event.subject not in subjects) or (customers and who not in customers):
            continue
        if any(event.properties.get(name, "") not in allowed for name, allowed in filters):
            continue
        names = {"subject": event.subject, "customer": who}
        group = tuple(names[name] if name in names else event.properties.get(name, "") for name in group_by)
        window = max(index for index, edge in enumerate(edges) if edge <= minute)
        cells.setdefault((window, group), []).append((one.time_us, value))
    return [
        (edges[window], edges[window + 1], group, aggregate(meter.aggregation, cell), len(cell))
        for (window, group), cell in sorted(cells.items())
    ]


def filled(rows: Sequence[Row], meter: Meter, edges: Sequence[int]) -> list[Row]:
    """Every window of every group that has usage anywhere in the span."""
    zero = Fraction(0) if meter.aggregation in ("COUNT", "SUM", "UNIQUE_COUNT") else None
    found = {(row[0], row[2]): row for row in rows}
    groups = sorted({row[2] for row in rows})
    return [
        found.get((start, group), (start, end, group, zero, 0))
        for start, end in itertools.pairwise(edges)
        for group in groups
    ]


# --- Subjects and access ----------------------------------------------------------


class Refused(Exception):  # noqa: N818 - what the caller is told
    """A change of owner that would rewrite what was decided."""


def owner_after(changes: Sequence[tuple[str, str, int]], minute: int) -> str:
    """Who owns a subject in a minute, after ("assign" or "release", customer, minute) in order.

    A history is a row of (from this minute on, this owner). What lasted no time is no part of it.
    """
    history: list[tuple[float, str]] = []
    for verb, customer, change_minute in changes:
        since, present = history[-1] if history else (float("-inf"), "")
        if verb == "release":
            if present == "" and since == change_minute and history[-2][1] == customer:
                continue
            if present != customer or change_minute < since:
                raise Refused
        elif present != customer and history and change_minute < since:
            raise Refused
        after = customer if verb == "assign" else ""
        begin = change_minute if history else float("-inf")
        if present != after and history and since == begin:
            history.pop()
        if not history or history[-1][1] != after:
            history.append((begin, after))
    return next((who for since, who in reversed(history) if since <= minute), "")


def access(
    allowance: Fraction, used: Sequence[Fraction], amount: Fraction | None, *, soft: bool
) -> tuple[bool, Fraction, Fraction]:
    """Whether a metered check says yes, the balance and the overage: burn the allowance down, use by use."""
    left = allowance
    for one in used:
        left -= one
    enough = left > 0 if amount is None else left >= amount
    return enough or soft, max(left, Fraction(0)), max(-left, Fraction(0))


# --- Grants ---------------------------------------------------------------------


@dataclass
class ModelGrant:
    """A grant; `every` is the length of its recurrence from `anchor`, 0 for none. `left` is its balance."""

    name: str
    amount: Fraction
    priority: int
    starts: int
    expires: float
    voided: float
    least: Fraction
    most: Fraction | None
    every: int
    anchor: int
    created: int
    left: Fraction = Fraction(0)
    snapshot: Fraction = Fraction(0)

    def is_active(self, minute: int) -> bool:
        return self.starts <= minute < min(self.expires, self.voided)


@dataclass
class ModelResets:
    """Resets every `every` minutes from `anchor`; by hand: minute to (moves the anchor, keeps overage)."""

    anchor: int
    every: int
    by_hand: dict[int, tuple[bool, bool | None]]

    def due_after(self, minute: int) -> int:
        """The next boundary, by the anchor that is in force."""
        moved = [at for at, (moves, _) in self.by_hand.items() if moves and at <= minute]
        anchor = max(moved, default=self.anchor)
        return minute + self.every - (minute - anchor) % self.every


@dataclass
class Allowed:
    """An entitlement that lives through its history minute by minute, where there is anything to do."""

    start: int
    resets: ModelResets
    grants: list[ModelGrant]
    allowance: Fraction | None
    preserve: bool
    level: bool
    overage: Fraction = Fraction(0)
    overage_snapshot: Fraction = Fraction(0)
    seen: list[object] = field(default_factory=list)
    phase: Fraction = Fraction(0)
    changed: bool = False
    # Other allowances, from some of the resets by hand on.
    allowances: dict[int, Fraction] = field(default_factory=dict)

    def live(
        self, uses: Sequence[tuple[int, Fraction | str]], until: int
    ) -> tuple[Fraction, dict[str, Fraction]]:
        """Go through the uses (minute, and an amount, a level or a distinct value) before `until`.

        Returns what is left (below zero: overage) and the balance of each active grant, at `until`.
        """
        happenings: dict[int, list[Fraction | str]] = {}
        for minute, what in uses:
            if self.start <= minute < until:
                happenings.setdefault(minute, []).append(what)
        due = self.resets.due_after(self.start)
        minutes = {*happenings, *self.minutes(until)}
        for minute in sorted(int(at) for at in minutes if self.start <= at <= until):
            reset = minute in (self.start, due, *self.resets.by_hand)
            self.change(minute, reset=reset)
            if reset:
                due = self.resets.due_after(minute)
                self.seen.clear()
                self.allowance = self.allowances.get(minute, self.allowance)
                if self.allowance is not None:
                    self.issue(minute, due)
            self.settle(minute)
            if minute < until:
                for what in happenings.get(minute, ()):
                    self.use(minute, what)
        active = [grant for grant in self.grants if grant.is_active(until)]
        total = sum((grant.left for grant in active), Fraction(0)) - self.overage
        return total, {grant.name: grant.left for grant in active}

    def minutes(self, until: int) -> set[float]:
        """All minutes at which anything but use might happen, and many more."""
        minutes: set[float] = {self.start, until, *self.resets.by_hand}
        for grant in self.grants:
            minutes |= {grant.starts, grant.expires, grant.voided}
            if grant.every:
                minutes |= set(range(grant.anchor - 50 * grant.every, until + 1, grant.every))
        boundary = self.start
        while boundary <= until:
            boundary = self.resets.due_after(boundary)
            minutes.add(boundary)
        for by_hand in self.resets.by_hand:
            minutes |= {by_hand + self.resets.every * times for times in range(60)}
        return minutes

    def change(self, minute: int, *, reset: bool) -> None:
        """What may happen at a minute, one after the other."""
        turned = (grant for grant in self.grants if grant.is_active(minute - 1) != grant.is_active(minute))
        recurring = (grant for grant in self.grants if self.recurs(grant, minute))
        self.changed = reset or any(turned) or any(recurring)
        if self.changed and self.level and not reset:
            for grant in self.grants:
                grant.left = grant.snapshot
        if reset:
            self.reset(minute)
        for grant in self.grants:
            if grant.is_active(minute) and (grant.starts == minute or self.recurs(grant, minute)):
                grant.left = grant.amount

    def reset(self, minute: int) -> None:
        _, by_hand = self.resets.by_hand.get(minute, (False, None))
        if self.level or not (self.preserve if by_hand is None else by_hand):
            self.overage = Fraction(0)
        self.grants = [grant for grant in self.grants if grant.name != "allowance"]
        for grant in self.grants:
            if grant.is_active(minute) and grant.starts < minute:
                low = max(grant.least, grant.left)
                grant.left = low if grant.most is None or low < grant.most else grant.most

    @staticmethod
    def recurs(grant: ModelGrant, minute: int) -> bool:
        if not grant.every or not grant.is_active(minute) or minute <= grant.starts:
            return False
        return (minute - grant.anchor) % grant.every == 0

    def issue(self, minute: int, due: int) -> None:
        assert self.allowance is not None
        fresh = ModelGrant(
            "allowance", self.allowance, 0, minute, due, float("inf"), Fraction(0), None, 0, 0, -1
        )
        fresh.left = fresh.amount
        self.grants.append(fresh)

    def settle(self, minute: int) -> None:
        """After a change: pay the debt, and begin a phase. Without one the phase goes on."""
        if not self.changed:
            return
        owed, self.overage = (Fraction(0) if self.level else self.overage), Fraction(0)
        if self.level:
            for grant in self.grants:
                grant.snapshot = grant.left
        self.burn(minute, owed)
        for grant in self.grants:
            grant.snapshot = grant.left
        self.overage_snapshot = self.overage
        self.phase = Fraction(0)
        if self.level and self.seen:
            self.burn(minute, self.level_now())

    def level_now(self) -> Fraction:
        last = self.seen[-1]
        assert isinstance(last, Fraction)
        return last

    def use(self, minute: int, what: Fraction | str) -> None:
        """One event: burn the phase anew with what it adds, so that corrections undo exactly."""
        if self.level:
            self.seen.append(what)
            self.phase = self.level_now()
        elif isinstance(what, str):
            self.phase += what not in self.seen
            self.seen.append(what)
        else:
            self.phase += what
        for grant in self.grants:
            grant.left = grant.snapshot
        self.overage = self.overage_snapshot
        self.burn(minute, self.phase)

    def burn(self, minute: int, amount: Fraction) -> None:
        order = sorted(
            (grant for grant in self.grants if grant.is_active(minute)),
            key=lambda grant: (grant.priority, grant.expires, grant.created, grant.name),
        )
        if amount < 0:
            back = -amount
            if self.overage > 0:
                repaid = min(back, self.overage)
                self.overage -= repaid
                back -= repaid
            if order:
                order[0].left += back
            return
        for grant in order:
            while amount > 0 and grant.left > 0:
                taken = min(amount, grant.left)
                grant.left -= taken
                amount -= taken
        self.overage += amount

"""What was agreed on holds from its minute to its end, for its rate card, and changes what it names alone."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.catalog import RateCard
from ammeter.domain.minute import minute_of
from ammeter.domain.period import Period
from ammeter.domain.price import Commitments, Discounts, FlatPrice, Terms, UnitPrice
from ammeter.domain.price_override import (
    OverrideDraft,
    PriceOverride,
    check_span,
    end_of,
    make_override,
    overlapping,
    pieces,
)
from ammeter.errors import InvalidInputError
from tests import model

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = Period(3, START, START + 60 * MINUTE, 3600)
CARD = RateCard("fee", "", "", FlatPrice(Decimal(10)), None, rate_card_id=7)


def override(name: str, start: int, end: int | None, key: str = "fee", **given: Any) -> PriceOverride:  # noqa: ANN401
    stop = None if end is None else START + end * MINUTE
    price = given.pop("price", FlatPrice(Decimal(1)))
    return PriceOverride(name, "sub_1", key, START + start * MINUTE, stop, price, given, "", START)


@st.composite
def histories(draw: st.DrawFn) -> list[PriceOverride]:
    """Overrides of one rate card that do not overlap, and one of another."""
    edges = sorted(draw(st.lists(st.integers(-20, 80), min_size=2, max_size=8, unique=True)))
    found = []
    for number in range(len(edges) // 2):
        last = number == len(edges) // 2 - 1 and draw(st.booleans())
        found.append(override(f"pov_{number}", edges[2 * number], None if last else edges[2 * number + 1]))
    return [*found, override("pov_other", -5, None, "other")]


@given(histories())
def test_a_period_is_cut_where_the_model_says(history: list[PriceOverride]) -> None:
    start = minute_of(START)
    wanted = model.agreed_stretches(
        [
            (
                minute_of(one.from_time),
                None if one.to_time is None else minute_of(one.to_time),
                one.price_override_id,
            )
            for one in history
            if one.rate_card_key == "fee"
        ],
        range(start, start + 60),
    )
    found = list(pieces(history, CARD, HOUR))
    merged: list[tuple[int, int, str | None]] = []
    for card, piece in found:
        name = card.price_override_id or None
        assert card.price == (FlatPrice(Decimal(1)) if name else CARD.price)
        assert (piece.index, piece.full_seconds, piece.inside) == (3, 3600, piece.start > START)
        merged.append((minute_of(piece.start), minute_of(piece.end), name))
    assert merged == wanted


def test_one_time_charges_and_what_has_no_length_are_one_piece() -> None:
    history = [override("pov_0", 0, 10), override("pov_1", 20, None)]
    once = RateCard("fee", "", "", FlatPrice(Decimal(10)), None, one_time=True)
    [(card, piece)] = pieces(history, once, HOUR)
    assert (card.price_override_id, piece) == ("pov_0", HOUR)
    nothing = Period(3, START + 30 * MINUTE, START + 30 * MINUTE, 3600)
    [(card, piece)] = pieces(history, CARD, nothing)
    assert (card.price_override_id, piece) == ("pov_1", nothing)


def test_what_is_not_given_stays_and_what_is_given_empty_goes() -> None:
    terms = Terms(None, Discounts(percentage=Decimal(5)), Commitments(minimum_amount=Decimal(3)))
    card = RateCard("use", "", "f", UnitPrice(Decimal(1)), None, terms=terms)
    lower = override("pov_0", 0, None, "use", price=None, discounts=Discounts(percentage=Decimal(50)))
    [(changed, _)] = pieces([lower], card, HOUR)
    assert (changed.price, changed.terms) == (
        UnitPrice(Decimal(1)),
        Terms(None, Discounts(percentage=Decimal(50)), Commitments(minimum_amount=Decimal(3))),
    )
    without = override("pov_0", 0, None, "use", price=None, commitments=None)
    [(changed, _)] = pieces([without], card, HOUR)
    assert changed.terms == Terms(None, Discounts(percentage=Decimal(5)), None)


def refused(draft: OverrideDraft, cards: Sequence[RateCard]) -> list[str]:
    with pytest.raises(InvalidInputError) as raised:
        make_override(draft, cards, {"f": ("model",)}, "USD")
    return [one.field for one in raised.value.violations]


USE = RateCard("use", "", "f", UnitPrice(Decimal(1)), None, terms=Terms(commitments=Commitments(Decimal(9))))


@pytest.mark.parametrize(
    ("kind", "price", "terms", "fields"),
    [
        ("", {}, {}, ["price_override.price"]),
        ("?", {}, {}, ["price_override.price"]),
        ("flat", {"amount": "1"}, {}, ["price_override.price", "price_override.commitments"]),
        ("unit", {"unit_amount": "-1"}, {}, ["price_override.price.unit.unit_amount"]),
        ("", {}, {"discounts": {"percentage": "0"}}, ["price_override.discounts.percentage"]),
        ("", {}, {"commitments": {"maximum_amount": "0.001"}}, ["price_override.commitments.maximum_amount"]),
        (
            "matrix",
            {"dimensions": ["x"], "default_unit_amount": "1"},
            {},
            ["price_override.price.matrix.dimensions[0]"],
        ),
    ],
)
def test_what_cannot_be_agreed_on_is_refused_with_its_path(
    kind: str, price: dict[str, Any], terms: dict[str, Any], fields: list[str]
) -> None:
    assert refused(OverrideDraft("sub_1", "use", None, None, kind, price, terms), [USE]) == fields


def test_a_price_by_the_seat_stays_one() -> None:
    seats = RateCard("fee", "", "", FlatPrice(Decimal(10), per_seat=True), None)
    draft = OverrideDraft("sub_1", "fee", None, None, "flat", {"amount": "1"}, {})
    assert refused(draft, [seats]) == ["price_override.price.flat.per_seat"]
    by_seat = OverrideDraft("sub_1", "fee", None, None, "flat", {"amount": "1", "per_seat": True}, {})
    assert make_override(by_seat, [seats], {}, "USD")[0] == FlatPrice(Decimal(1), per_seat=True)


def test_an_override_of_nothing_is_refused() -> None:
    draft = OverrideDraft("sub_1", "none", None, None, "unit", {"unit_amount": "1"}, {})
    assert refused(draft, []) == ["price_override.rate_card_key"]
    free = RateCard("none", "", "f", None, None)
    assert refused(draft, [free]) == ["price_override.rate_card_key"]


def test_spans_lie_where_nothing_is_billed() -> None:
    now = START + 30 * MINUTE

    def span(start: datetime | None, end: datetime | None = None) -> tuple[datetime, datetime | None]:
        return check_span(OverrideDraft("s", "k", start, end, "", {}, {}), START, now)

    assert span(None) == (now, None)
    assert span(START + timedelta(seconds=59)) == (START, None)
    for start, end in ((START - MINUTE, None), (now + timedelta(days=367), None), (now, now), (now, START)):
        with pytest.raises(InvalidInputError):
            span(start, end)
    standing = override("pov_0", 10, 20)
    assert overlapping([standing], "fee", START + 19 * MINUTE, None) is standing
    assert overlapping([standing], "fee", START, START + 10 * MINUTE) is None
    assert overlapping([standing], "fee", START + 20 * MINUTE, None) is None
    assert overlapping([standing], "other", START, None) is None
    early = end_of(override("pov_0", 40, None), now, now)
    assert early.is_void
    assert overlapping([early], "fee", START, None) is None

"""Prepaid credits pay as the slow model pays, coin by coin."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.credit_lot import (
    CreditLot,
    LotDraft,
    LotKind,
    LotState,
    Move,
    MoveKind,
    book,
    burn_order,
    check_lot,
    lot_state,
    remaining_at,
)
from ammeter.domain.invoice import Invoice, InvoiceLine, Kind, State, Terms, with_taxes
from ammeter.domain.money import add
from ammeter.domain.prepaid import pay_from, payables
from ammeter.domain.tax import TaxRate
from ammeter.domain.top_up import TopUpRule, judge
from ammeter.errors import InvalidInputError
from tests.model_credit import Coins, line_coins, pay

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES = ("", "input", "output")


def lot(name: str, coins: int, **fields: object) -> CreditLot:
    amount = Decimal(coins).scaleb(-2)
    made = CreditLot(
        name, 1, "acme", LotKind.PURCHASED, "USD", amount, amount, amount, 0, (), NOW, None, "", "", NOW
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def invoice(lines: list[tuple[str, int]], shares: list[tuple[int, set[str]]]) -> Invoice:
    """Lines of (feature, coins); taxes of (percent, features)."""
    made = tuple(
        InvoiceLine(
            str(place),
            Kind.USAGE,
            1,
            "card",
            feature,
            "",
            Decimal(0),
            None,
            Decimal(coins).scaleb(-2),
            0,
            NOW,
            NOW,
        )
        for place, (feature, coins) in enumerate(lines)
    )
    blank = Invoice(
        "inv", State.DRAFT, 1, "acme", "sub", "plan", "USD", 0, 0, NOW, NOW, Decimal(0), 0, NOW, lines=made
    )
    rates = [
        (TaxRate(f"t{n}", "", Decimal(percent), inclusive=False), of)
        for n, (percent, of) in enumerate(shares)
    ]
    return with_taxes(blank, lambda feature: [rate for rate, of in rates if feature in of], Terms(), 2)


LINES = st.lists(st.tuples(st.sampled_from(FEATURES), st.integers(-40, 90)), max_size=5)
TAXES = st.lists(st.tuples(st.integers(0, 30), st.sets(st.sampled_from(FEATURES), min_size=1)), max_size=2)
LOTS = st.lists(
    st.tuples(
        st.integers(1, 120),
        st.integers(-1, 1),
        st.none() | st.integers(1, 2),
        st.sets(st.sampled_from(FEATURES[1:])),
    ),
    max_size=4,
)


@given(LINES, TAXES, LOTS)
def test_lots_pay_lines_as_the_model_does(
    lines: list[tuple[str, int]],
    taxes: list[tuple[int, set[str]]],
    wanted: list[tuple[int, int, int | None, set[str]]],
) -> None:
    bill = invoice(lines, taxes)
    lots, coins = [], []
    for number, (amount, priority, days, features) in enumerate(wanted):
        expire = None if days is None else NOW + timedelta(days=days)
        name = f"lot{number}"
        lots.append(
            lot(name, amount, priority=priority, expire_time=expire, feature_keys=tuple(sorted(features)))
        )
        order = (priority, days is None, days or 0, number)
        coins.append(Coins(name, amount, order, frozenset(features) or None))
    taxed = [
        (Fraction(percent, 100), [place for place, (feature, _) in enumerate(lines) if feature in of])
        for percent, of in taxes
    ]
    gross = line_coins([amount for _, amount in lines], taxed)
    assert sum(gross) == bill.total * 100
    expected = pay(coins, [(feature, gross[place]) for place, (feature, _) in enumerate(lines)])
    found = {(one.credit_lot_id, int(one.line_id)): int(one.amount * 100) for one in pay_from(lots, bill)}
    assert found == expected
    assert add(line.amount for line in payables(bill)) == max(bill.total, Decimal(0))
    assert sum(found.values()) <= max(int(bill.total * 100), 0)


@given(st.integers(1, 10_000), st.integers(0, 9_999), st.lists(st.integers(1, 4_000), max_size=8))
def test_costs_of_a_lot_add_up_to_what_was_paid_for_it(amount: int, paid: int, takes: list[int]) -> None:
    whole = lot("a", amount, cost_basis=Decimal(paid).scaleb(-2), remaining=Decimal(0))
    kept = {"a": whole}
    entries = [*book(MoveKind.PURCHASE, kept, [Move("a", whole.amount)], 2)]
    left = amount
    for take in [*takes, amount]:
        taken = min(take, left)
        now = replace(whole, remaining=Decimal(left).scaleb(-2))
        if taken:
            entries += book(MoveKind.APPLY, {"a": now}, [Move("a", -Decimal(taken).scaleb(-2))], 2)
            left -= taken
    assert sum(entry.amount for entry in entries) == sum(entry.cost for entry in entries) == 0
    assert sum(entry.cost for entry in entries if entry.account == "lot") == 0
    assert sum(entry.cost for entry in entries if entry.account == "applied") == whole.cost_basis


def test_two_moves_of_one_lot_cost_what_one_of_both_would() -> None:
    whole = lot("a", 3, cost_basis=Decimal("0.01"))
    one = Decimal("0.01")
    costs = [e.cost for e in book(MoveKind.APPLY, {"a": whole}, [Move("a", -one)] * 3, 2)[::2]]
    assert costs == [Decimal("0.00"), Decimal("-0.01"), Decimal("0.00")]


def test_lots_pay_by_priority_then_expiry_then_creation_then_id() -> None:
    soon, late = NOW + timedelta(days=1), NOW + timedelta(days=2)
    order = [
        lot("first", 1, priority=-1),
        lot("soon", 1, expire_time=soon),
        lot("late", 1, expire_time=late),
        lot("a", 1),
        lot("b", 1),
        lot("newer", 1, create_time=soon),
        lot("last", 1, priority=1, expire_time=soon),
    ]
    shuffled = [order[place] for place in (3, 6, 0, 5, 2, 4, 1)]
    assert sorted(shuffled, key=burn_order) == order


def test_a_lot_pays_from_its_minute_to_the_one_before_its_expiry() -> None:
    one = lot("a", 100, effective_time=NOW, expire_time=NOW + timedelta(minutes=1))
    instant = timedelta(microseconds=1)
    assert lot_state(one, NOW - instant) is LotState.SCHEDULED
    assert lot_state(one, NOW) is LotState.ACTIVE
    assert lot_state(one, NOW + timedelta(minutes=1) - instant) is LotState.ACTIVE
    assert lot_state(one, NOW + timedelta(minutes=1)) is LotState.EXPIRED
    assert remaining_at(one, NOW + timedelta(minutes=1)) == 0
    assert lot_state(replace(one, remaining=Decimal(0)), NOW) is LotState.EXHAUSTED


def test_all_faults_of_a_lot_are_told_at_once() -> None:
    draft = LotDraft(
        "acme",
        Decimal(-1),
        cost_basis=Decimal("0.001"),
        priority=1001,
        feature_keys=("known", "unknown", "known"),
        effective_time=NOW - timedelta(minutes=1),
        expire_time=NOW - timedelta(minutes=2),
        description="x" * 257,
        reference="x" * 257,
    )
    with pytest.raises(InvalidInputError) as caught:
        check_lot(draft, LotKind.PURCHASED, {"known"}, "USD", NOW)
    assert [each.field.removeprefix("credit_lot.") for each in caught.value.violations] == [
        "amount",
        "cost_basis",
        "feature_keys[1]",
        "feature_keys[2]",
        "effective_time",
        "expire_time",
        "priority",
        "description",
        "reference",
    ]


def test_a_fall_below_the_threshold_is_told_once_until_the_balance_is_back() -> None:
    rule = TopUpRule(Decimal(10), Decimal(50))
    told = []
    for available in ("12", "10", "9.99", "5", "9.99", "10", "9"):
        verdict = judge(rule, Decimal(available))
        rule = replace(rule, armed=verdict.armed)
        told.append(verdict.tell)
    assert told == [False, False, True, False, False, False, True]

"""What credit notes take back, and never more than was charged."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.credit_note import CreditRequest, choose, left_of, settle
from ammeter.domain.invoice import Invoice, InvoiceLine, Kind, State, Terms, with_taxes
from ammeter.domain.tax import TaxRate
from ammeter.errors import InvalidInputError, PreconditionError

TIME = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = (0, TIME, datetime(2026, 2, 1, tzinfo=UTC))


def invoice(*amounts: str, percentage: str = "19", inclusive: bool = False) -> Invoice:
    lines = tuple(
        InvoiceLine(
            f"l{n}", Kind.USAGE, 0, "card", "", f"Line {n}", Decimal(1), Decimal(1), Decimal(amount), *MONTH
        )
        for n, amount in enumerate(amounts)
    )
    bare = Invoice(
        "inv_1",
        State.ISSUED,
        0,
        "acme",
        "sub",
        "plan",
        "USD",
        0,
        0,
        TIME,
        TIME,
        Decimal(0),
        0,
        TIME,
        lines=lines,
    )
    rates = [TaxRate("vat", "VAT", Decimal(percentage), inclusive)]
    return with_taxes(bare, lambda _: rates, Terms(), 2)


def money(*amounts: str) -> list[Decimal]:
    return [Decimal(amount) for amount in amounts]


def test_without_words_all_that_is_left_is_credited_with_its_tax() -> None:
    one = invoice("10.00", "-2.50", "0.00")
    lines = choose(one, {}, CreditRequest())
    assert [(line.line_id, line.amount) for line in lines] == [
        ("l0", Decimal("10.00")),
        ("l1", Decimal("-2.50")),
    ]
    subtotal, taxes, total = settle(one, {}, lines)
    assert (subtotal, total) == (one.subtotal, one.total)
    assert [tax.amount for tax in taxes] == [tax.amount for tax in one.taxes]


def test_a_line_is_credited_up_to_its_amount_over_all_notes() -> None:
    one = invoice("10.00", "5.00")
    request = CreditRequest(lines=(("l0", Decimal("4.00")),))
    assert [line.amount for line in choose(one, {}, request)] == money("4.00")
    before = {"l0": Decimal("4.00")}
    assert [line.amount for line in choose(one, before, CreditRequest(lines=(("l0", None),)))] == money(
        "6.00"
    )
    with pytest.raises(InvalidInputError, match=r"lines\[0\].amount: must be between 0 and 6.00"):
        choose(one, before, CreditRequest(lines=(("l0", Decimal("6.01")),)))
    with pytest.raises(PreconditionError, match="everything is credited already"):
        choose(one, {"l0": Decimal(10), "l1": Decimal(5)}, CreditRequest())


def test_all_faults_are_told_at_once() -> None:
    one = invoice("10.00", "-5.00")
    asked = (("l9", None), ("l0", Decimal(-1)), ("l0", None), ("l1", Decimal(1)), ("l1", None))
    with pytest.raises(InvalidInputError) as caught:
        choose(one, {}, CreditRequest(lines=asked))
    assert [field for field, _ in caught.value.violations] == [
        "lines[0].line_id",
        "lines[1].amount",
        "lines[2].line_id",
        "lines[3].amount",
        "lines[4].line_id",
    ]


def test_an_amount_is_spread_in_proportion_and_to_the_cent() -> None:
    one = invoice("10.00", "10.00", "10.00")
    lines = choose(one, {}, CreditRequest(amount=Decimal("1.00")))
    assert [line.amount for line in lines] == money("0.33", "0.34", "0.33")
    for wrong in ("0", "-1", "30.01"):
        with pytest.raises(InvalidInputError, match=r"must be more than 0 and at most 30\.00"):
            choose(one, {}, CreditRequest(amount=Decimal(wrong)))


@given(
    st.lists(st.integers(-5000, 10_000), min_size=1, max_size=6),
    st.lists(st.integers(1, 10_000), max_size=5),
    st.sampled_from(("0", "7.7", "19", "33.3333")),
    st.booleans(),
)
def test_notes_in_any_slices_never_pass_a_line_and_add_up_to_the_invoice(
    cents: list[int],
    slices: list[int],
    percentage: str,
    inclusive: bool,  # noqa: FBT001 - drawn
) -> None:
    one = invoice(
        *(str(Decimal(cent).scaleb(-2)) for cent in cents), percentage=percentage, inclusive=inclusive
    )
    credited: dict[str, Decimal] = {}
    paid_back = Decimal(0)
    taxes = Decimal(0)
    requests = [CreditRequest(amount=Decimal(each).scaleb(-2)) for each in slices]
    for request in [*requests, CreditRequest()]:
        left = left_of(one, credited)
        try:
            lines = choose(one, credited, request)
        except (InvalidInputError, PreconditionError):
            whole = sum(left.values(), Decimal(0))
            assert not any(left.values()) if request.amount is None else not 0 < request.amount <= whole
            continue
        subtotal, of_rates, total = settle(one, credited, lines)
        if request.amount is not None:
            assert subtotal == request.amount
        for line in lines:
            there = left[line.line_id]
            assert min(there, Decimal(0)) <= line.amount <= max(there, Decimal(0))
            credited[line.line_id] = credited.get(line.line_id, Decimal(0)) + line.amount
        paid_back += total
        taxes += sum((tax.amount for tax in of_rates), Decimal(0))
    assert not any(left_of(one, credited).values())
    assert paid_back == one.total
    assert taxes == sum((tax.amount for tax in one.taxes), Decimal(0))


def test_the_amount_must_be_in_the_currencys_digits() -> None:
    yen = invoice("10")._replace(currency="JPY")
    with pytest.raises(InvalidInputError, match="digits"):
        choose(yen, {}, CreditRequest(amount=Decimal("0.5")))
    with pytest.raises(InvalidInputError, match="digits"):
        choose(yen, {}, CreditRequest(lines=(("l0", Decimal("0.5")),)))

"""Papers: exact numbers as a place writes them, every sentence in every language, always the same bytes."""

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ammeter.domain.invoice import Invoice, InvoiceLine, Kind, Party, Prepaid, State, Terms
from ammeter.domain.money import currency_exponent
from ammeter.domain.paper.numbers import Numbers, parse_locale
from ammeter.domain.paper.paper import invoice_paper
from ammeter.domain.paper.words import _SENTENCES, _WORDS, LANGUAGES, translate, word
from ammeter.domain.pricing import Detail
from ammeter.domain.tax import Tax
from ammeter.domain.usage_groups import MAX_ROWS, greatest
from ammeter.errors import InvalidInputError
from ammeter.usecases.paper_csv import invoice_csv
from ammeter.usecases.paper_html import to_html
from ammeter.usecases.paper_pdf import to_pdf
from ammeter.usecases.render import Format, file_name

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def sample(currency: str = "EUR", **fields: object) -> Invoice:
    """An invoice of one of everything, whose names are as hostile as names can be."""
    steps = (
        Detail("tier 1, from 0 to 1000", Decimal(1000), Decimal("0.01"), Decimal("10.00")),
        Detail("tier 2, from 1000 on, flat amount", Decimal(1), Decimal(2), Decimal("2.00")),
        Detail("10 percent discount", None, None, Decimal("-1.20")),
    )
    tokens = InvoiceLine(
        "a", Kind.USAGE, 1, "tokens", "tokens", "=cmd|'/c calc'!A1 <b>&", Decimal("1234567.000000000001"),
        Decimal("0.0000025"), Decimal("10.80"), 0, START, END, details=steps,
    )  # fmt: skip
    late = InvoiceLine(
        "b", Kind.LATE_USAGE, 1, "tokens", "tokens", "Tokens, reported late", Decimal(3), None,
        Decimal("0.20"), 0, datetime(2025, 12, 1, tzinfo=UTC), START,
    )  # fmt: skip
    vat = Tax(
        "vat", "#let x = 1 $y$", Decimal(19), inclusive=False, note="*note*", covered_amount=Decimal("11.00"),
        amount=Decimal("2.09"), line_ids=("a", "b"),
    )  # fmt: skip
    customer = Party("acme", "Ácmé <GmbH>", "a@b", "Weg 1\n12345 Ort", "DE1")
    made = Invoice(
        "inv_1", State.ISSUED, 1, "acme", "sub_1", "plan", currency, 0, 0, START, END, Decimal("13.09"), 7,
        END, number=42, number_text="INV-000042", issue_time=END, due_time=END, lines=(tokens, late),
        subtotal=Decimal("11.00"), taxes=(vat,), prepaid=(Prepaid("crl_1", "a", Decimal(3)),),
        prepaid_total=Decimal(3), terms=Terms(customer, Party(name="Åmpère"), "Memo"),
    )  # fmt: skip
    return made._replace(**fields)  # type: ignore[arg-type]


def numbers(locale: str, currency: str = "EUR", zone: str = "UTC") -> Numbers:
    return Numbers(parse_locale(locale), currency, zone)


@pytest.mark.parametrize(
    ("locale", "currency", "expected"),
    [
        ("en", "USD", "$1,234.50"),
        ("de", "EUR", "1.234,50\N{NO-BREAK SPACE}€"),
        ("de-CH", "CHF", "CHF\N{NO-BREAK SPACE}1’234.50"),  # noqa: RUF001 - as they write it
        ("en", "JPY", "¥1,235"),
        ("en", "KWD", "KWD\N{NO-BREAK SPACE}1,234.500"),
        ("en", "ALL", "ALL\N{NO-BREAK SPACE}1,234.50"),  # CLDR would print none of its digits
    ],
)
def test_money_has_the_digits_of_its_currency(locale: str, currency: str, expected: str) -> None:
    exponent = currency_exponent(currency)
    amount = Decimal("1234.5").quantize(Decimal(1).scaleb(-exponent), "ROUND_HALF_UP")
    assert numbers(locale, currency).money(amount) == expected


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**26), max_value=10**26, places=12))
def test_no_digit_of_a_quantity_is_lost(value: Decimal) -> None:
    text = numbers("en").number(value)
    assert Decimal(text.replace(",", "")) == value
    assert "E" not in text


@given(st.integers(-(10**28), 10**28))
def test_no_digit_of_an_amount_is_lost(cents: int) -> None:
    text = numbers("en").money(Decimal(cents).scaleb(-2))
    assert Decimal(text.replace(",", "").replace("€", "")) == Decimal(cents).scaleb(-2)


@pytest.mark.parametrize("text", ["tlh", "xx", "de-", "../x", "zh", "e" * 5000, "de_DE.UTF-8@euro", "1"])
def test_a_locale_that_papers_do_not_have_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"locale: .* is no language that papers have"):
        parse_locale(text)


@pytest.mark.parametrize("text", ["", "en", "en-GB", "de_AT", "fr-CA", "es-419", "it", "nl-BE"])
def test_a_locale_may_name_a_place(text: str) -> None:
    assert parse_locale(text).language in LANGUAGES


def test_every_word_and_sentence_is_there_in_every_language() -> None:
    assert {len(texts) for texts in _WORDS.values()} == {len(LANGUAGES)}
    assert {len(sentence.texts) for sentence in _SENTENCES} == {len(LANGUAGES) - 1}
    for key in _WORDS:
        assert all(word(key, language).strip() for language in LANGUAGES)


@pytest.mark.parametrize(
    ("text", "german"),
    [
        ("tier 2, from 100 on, flat amount", "Stufe 2, ab 100, Grundbetrag"),
        ("tier 1, from 0 to 100.5", "Stufe 1, von 0 bis 100.5"),
        ("Input, tier 1, reported late", "Input, tier 1, nachgemeldet"),
        ("-2001 divided by 1000, rounded up: -2 units", "-2001 ÷ 1000, aufgerundet: -2 Einheiten"),
        ("5 times 3: 15 units", "5 × 3: 15 Einheiten"),  # noqa: RUF001 - as it is printed
        ("12.5 percent discount", "12.5 Prozent Rabatt"),
        ("model 'small {0}'", "model 'small {0}'"),
        ("{0}, reported late", "{0}, nachgemeldet"),
    ],
)
def test_what_pricing_says_is_said_in_german(text: str, german: str) -> None:
    assert translate(text, "de") == german
    assert translate(text, "en") == text


def test_a_span_of_days_names_its_last_day_where_the_customer_is() -> None:
    assert numbers("en").span(START, END) == "Jan 1, 2026 – Jan 31, 2026"  # noqa: RUF001 - a dash
    auckland = ZoneInfo("Pacific/Auckland")
    start, end = datetime(2026, 4, 1, tzinfo=auckland), datetime(2026, 5, 1, tzinfo=auckland)
    there = numbers("de", zone="Pacific/Auckland").span(start.astimezone(UTC), end.astimezone(UTC))
    assert there == "01.04.2026 – 30.04.2026"  # noqa: RUF001 - a dash
    assert "12:30" in numbers("de").span(START.replace(hour=12, minute=30), END)


def test_html_says_everything_and_runs_nothing() -> None:
    usage = (("a", greatest(("subject",), {("<script>",): Decimal(5), ("b",): Decimal(7)})),)
    text = to_html(invoice_paper(sample(), numbers("de"), usage)).decode()
    for expected in (
        '<html lang="de">',
        "Rechnung",
        "INV-000042",
        "1.234.567,000000000001",
        "0,0000025",
        "Stufe 2, ab 1000, Grundbetrag",
        "-1,20",
        "Aus Guthaben bezahlt",
        "10,09",
        "Verbrauch nach Gruppen",
        "&lt;script&gt;",
        "Ácmé &lt;GmbH&gt;",
    ):
        assert expected in text, expected
    for never in ("<script", "<b>", "http://", "https://", "src="):
        assert never not in text


@pytest.mark.parametrize(
    ("state", "said"), [(State.DRAFT, "Brouillon"), (State.VOID, "ANNULÉE"), (State.PAID, "")]
)
def test_a_paper_says_that_it_is_a_draft_or_void_and_nothing_of_what_came_later(
    state: State, said: str
) -> None:
    paid = to_html(invoice_paper(sample(), numbers("fr"), ()))
    now = to_html(
        invoice_paper(sample(state=state, paid_time=END, credited_total=Decimal(1)), numbers("fr"), ())
    )
    assert (now == paid) is (not said)
    assert said.encode() in now


def test_csv_is_plain_and_no_spreadsheet_computes_it() -> None:
    usage = (("a", greatest(("model",), {("small",): Decimal(5)})),)
    rows = [row.split(",") for row in invoice_csv(sample(), usage).decode().split("\r\n")]
    records = [row[0] for row in rows]
    assert records == [
        "record", "line", "detail", "detail", "detail", "line", "usage", "tax", "prepaid", "subtotal",
        "total", "prepaid_total", "",
    ]  # fmt: skip
    assert rows[1][8] == "'=cmd|'/c calc'!A1 <b>&"
    assert rows[4][13] == "-1.20", "a number is no text"
    assert rows[1][9:11] == ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]


def test_only_the_greatest_groups_are_printed() -> None:
    groups: dict[tuple[str, ...], Decimal] = {
        (f"s{number:03}",): Decimal(number) for number in range(MAX_ROWS + 7)
    }
    kept = greatest(("subject",), groups)
    assert len(kept.rows) == MAX_ROWS
    assert kept.left_out_count == 7
    assert kept.rows[0] == ((f"s{MAX_ROWS + 6:03}",), Decimal(MAX_ROWS + 6))


def test_a_file_is_named_by_the_number_in_harmless_characters() -> None:
    assert file_name("invoice", "INV/2026 #1", "inv_1", Format.PDF) == "invoice-INV-2026-1.pdf"
    assert file_name("invoice", "../..", "inv_1", Format.PDF) == "invoice-inv_1.pdf"
    assert file_name("invoice", "", "inv_1", Format.CSV) == "invoice-inv_1.csv"


def _digests() -> list[str]:
    usage = (("a", greatest(("model",), {("small",): Decimal(5), ("large",): Decimal(5)})),)
    found = []
    for locale in ("en", "de-CH", "fr", "es", "it", "nl"):
        paper = invoice_paper(sample(), numbers(locale), usage)
        found += [hashlib.sha256(make(paper)).hexdigest() for make in (to_html, to_pdf)]
    return [*found, hashlib.sha256(invoice_csv(sample(), usage)).hexdigest()]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_another_process_makes_the_same_bytes(zone: str) -> None:
    environment = {"TZ": zone, "PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONPATH": ":".join(sys.path)}
    script = "from tests.domain.test_paper import _digests; print(*_digests())"

    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == _digests()


def test_a_pdf_of_a_thousand_lines_has_its_pages() -> None:
    line = sample().lines[0]
    many = sample(lines=tuple(line._replace(line_id=str(n), details=()) for n in range(1000)))
    made = to_pdf(invoice_paper(many, numbers("en"), ()))
    assert made.startswith(b"%PDF-")
    assert made.count(b"/Type /Page\n") + made.count(b"/Type /Page ") > 20 or made.count(b"/Page") > 20

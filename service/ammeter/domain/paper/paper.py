"""What is printed, in order. Everything is text by now: a format only places it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ammeter.domain.credit_note import CreditNote
from ammeter.domain.invoice import Invoice, InvoiceLine, Party, State
from ammeter.domain.lifecycle import amount_issued
from ammeter.domain.money import currency_exponent, round_money
from ammeter.domain.paper.numbers import Numbers
from ammeter.domain.paper.words import translate, word
from ammeter.domain.tax import Tax
from ammeter.domain.usage_groups import UsageGroups


class Fact(NamedTuple):
    """A label and what stands beside it."""

    label: str
    text: str


class Row(NamedTuple):
    """A line; texts may be empty."""

    description: str
    note: str
    quantity: str
    unit_price: str
    amount: str


class Total(NamedTuple):
    """A sum below the lines."""

    label: str
    amount: str
    strong: bool


class Section(NamedTuple):
    """A table of the annex: `numbers` are the places of columns that stand right."""

    title: str
    subtitle: str
    columns: tuple[str, ...]
    numbers: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Paper:
    """One printed paper; `stamp` is printed across the top, if there is one."""

    language: str
    title: str
    stamp: str
    supplier: tuple[str, ...]
    customer: tuple[str, ...]
    facts: tuple[Fact, ...]
    columns: tuple[str, ...]
    lines: tuple[Row, ...]
    totals: tuple[Total, ...]
    notes: tuple[str, ...]
    annex_title: str
    annex: tuple[Section, ...]
    page_word: str


def invoice_paper(invoice: Invoice, numbers: Numbers, usage: Sequence[tuple[str, UsageGroups]]) -> Paper:
    """Print an invoice as it was issued: what was paid or credited later is not on it; usage by line_id."""
    language = numbers.locale.language
    terms = invoice.terms
    stamp = {State.DRAFT: "draft", State.VOID: "void"}.get(invoice.state)
    facts = [
        Fact(word("number", language), invoice.number_text),
        Fact(word("date", language), numbers.day(invoice.issue_time) if invoice.issue_time else ""),
        Fact(word("due", language), numbers.day(invoice.due_time) if invoice.due_time else ""),
        Fact(word("period", language), numbers.span(invoice.period_start_time, invoice.period_end_time)),
        Fact(word("customer", language), invoice.customer_key),
        Fact(word("replaces", language), invoice.replaces_invoice_id),
    ]
    return Paper(
        language=str(numbers.locale).replace("_", "-"),
        title=word("invoice", language),
        stamp=word(stamp, language) if stamp else "",
        supplier=tuple(_party(terms.supplier, language)),
        customer=tuple(_party(terms.customer, language)),
        facts=tuple(fact for fact in facts if fact.text),
        columns=tuple(word(key, language) for key in ("description", "quantity", "unit_price", "amount")),
        lines=tuple(_row(line, invoice, numbers) for line in invoice.lines),
        totals=tuple(_invoice_totals(invoice, numbers)),
        notes=tuple(_notes(terms.memo, terms.tax_note, *(tax.note for tax in invoice.taxes))),
        annex_title=word("annex", language),
        annex=tuple(_annex(invoice, numbers, usage)),
        page_word=word("page", language),
    )


def credit_note_paper(note: CreditNote, invoice: Invoice, numbers: Numbers) -> Paper:
    """Print a credit note, under the parties of its invoice."""
    language = numbers.locale.language
    facts = (
        Fact(word("number", language), note.number_text),
        Fact(word("date", language), numbers.day(note.create_time)),
        Fact(word("for_invoice", language), note.invoice_number_text),
        Fact(word("customer", language), note.customer_key),
        Fact(word("reason", language), note.reason),
    )
    lines = tuple(
        Row(translate(line.description, language), "", "", "", numbers.money(line.amount))
        for line in note.lines
    )
    totals = [
        Total(word("subtotal", language), numbers.money(note.subtotal), strong=False),
        *_taxes(note.taxes, numbers),
        Total(word("total", language), numbers.money(note.total), strong=True),
    ]
    return Paper(
        language=str(numbers.locale).replace("_", "-"),
        title=word("credit_note", language),
        stamp="",
        supplier=tuple(_party(invoice.terms.supplier, language)),
        customer=tuple(_party(invoice.terms.customer, language)),
        facts=facts,
        columns=tuple(word(key, language) for key in ("description", "quantity", "unit_price", "amount")),
        lines=lines,
        totals=tuple(totals),
        notes=tuple(_notes(invoice.terms.tax_note, *(tax.note for tax in note.taxes))),
        annex_title="",
        annex=(),
        page_word=word("page", language),
    )


def _party(party: Party, language: str) -> Iterator[str]:
    yield from (text for text in (party.name, *party.address.splitlines(), party.email) if text)
    if party.tax_id:
        yield f"{word('tax_id', language)}: {party.tax_id}"


def _notes(*texts: str) -> Iterator[str]:
    """Give each text once, in order."""
    yield from dict.fromkeys(text for text in texts if text)


def _row(line: InvoiceLine, invoice: Invoice, numbers: Numbers) -> Row:
    """Print a line; its period is said where it is not the invoice's own."""
    own = (line.period_start_time, line.period_end_time) == (
        invoice.period_start_time,
        invoice.period_end_time,
    )
    return Row(
        description=translate(line.description or line.rate_card_key, numbers.locale.language),
        note="" if own else numbers.span(line.period_start_time, line.period_end_time),
        quantity=numbers.number(line.quantity) if line.rate_card_id is not None else "",
        unit_price="" if line.unit_price is None else numbers.unit_price(line.unit_price),
        amount=numbers.money(line.amount),
    )


def _invoice_totals(invoice: Invoice, numbers: Numbers) -> Iterator[Total]:
    language = numbers.locale.language
    if invoice.taxes:
        yield Total(word("subtotal", language), numbers.money(invoice.subtotal), strong=False)
    yield from _taxes(invoice.taxes, numbers)
    yield Total(word("total", language), numbers.money(invoice.total), strong=True)
    if invoice.prepaid_total:
        exponent = currency_exponent(invoice.currency)
        paid = round_money(invoice.prepaid_total, exponent).copy_negate()
        yield Total(word("prepaid", language), numbers.money(paid), strong=False)
        yield Total(word("to_pay", language), numbers.money(amount_issued(invoice)), strong=True)


def _taxes(taxes: Sequence[Tax], numbers: Numbers) -> Iterator[Total]:
    for tax in taxes:
        kind = f", {word('included', numbers.locale.language)}" if tax.inclusive else ""
        base = numbers.money(tax.covered_amount)
        label = f"{tax.name} ({numbers.percent(tax.percentage)} · {base}{kind})"
        yield Total(label, numbers.money(tax.amount), strong=False)


def _annex(invoice: Invoice, numbers: Numbers, usage: Sequence[tuple[str, UsageGroups]]) -> Iterator[Section]:
    language = numbers.locale.language
    columns = tuple(word(key, language) for key in ("description", "quantity", "unit_price", "amount"))
    title = word("details", language)
    for line in invoice.lines:
        if len(line.details) > 1:
            yield Section(
                title, _row(line, invoice, numbers).description, columns, (1, 2, 3), _steps(line, numbers)
            )
            title = ""
    lines = {line.line_id: line for line in invoice.lines}
    title = word("usage", language)
    for line_id, groups in usage:
        rows = [(*values, numbers.number(quantity)) for values, quantity in groups.rows]
        if groups.left_out_count:
            more = word("left_out", language).format(groups.left_out_count)
            rows.append((more, *("" for _ in groups.names)))
        line = lines[line_id]
        subtitle = f"{_row(line, invoice, numbers).description}, "
        subtitle += numbers.span(line.period_start_time, line.period_end_time)
        heads = (*groups.names, word("quantity", language))
        yield Section(title, subtitle, heads, (len(groups.names),), tuple(rows))
        title = ""


def _steps(line: InvoiceLine, numbers: Numbers) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            translate(step.description, numbers.locale.language),
            "" if step.quantity is None else numbers.number(step.quantity),
            "" if step.unit_price is None else numbers.unit_price(step.unit_price),
            numbers.money(step.amount),
        )
        for step in line.details
    )

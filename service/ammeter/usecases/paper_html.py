"""A paper as one HTML file: no script, no picture, nothing from elsewhere."""

from collections.abc import Iterator, Sequence
from html import escape

from ammeter.domain.paper.paper import Paper, Section

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;color:#1a1a1a;max-width:52rem;margin:3rem auto;padding:0 1.5rem}
h1{font-size:1.9rem;margin:0}h2{margin-top:3rem;border-top:1px solid #ccc;padding-top:1.5rem}
h3{margin:1.5rem 0 0}
header,.parties{display:flex;justify-content:space-between;gap:2rem}.parties{margin:2rem 0}
address{font-style:normal;white-space:pre-line}.stamp{color:#b00020;font-weight:700;font-size:1.4rem}
dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem 1rem;margin:0}dt{color:#666}dd{margin:0}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th{text-align:left;border-bottom:2px solid #1a1a1a;color:#666}
th,td{padding:.35rem .5rem;vertical-align:top}
td{border-bottom:1px solid #e4e4e4}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
small{color:#666;display:block}tfoot td{border:0;padding:.15rem .5rem}tfoot .s td{font-weight:700}
.notes{white-space:pre-line}
@media print{body{margin:0;max-width:none}h2{break-before:page}
tr{break-inside:avoid}thead{display:table-header-group}}
"""


def to_html(paper: Paper) -> bytes:
    """Write a paper as HTML, the same bytes for the same paper."""
    return "\n".join(_document(paper)).encode() + b"\n"


def _document(paper: Paper) -> Iterator[str]:
    title = " ".join([paper.title, *(fact.text for fact in paper.facts[:1])])
    yield "<!DOCTYPE html>"
    yield f'<html lang="{escape(paper.language)}">'
    yield f'<head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
    yield "<body>"
    stamp = f'<span class="stamp">{escape(paper.stamp)}</span>' if paper.stamp else ""
    yield f"<header><h1>{escape(paper.title)}</h1>{stamp}</header>"
    yield f'<div class="parties"><address>{_lines(paper.supplier)}</address>'
    yield f"<address>{_lines(paper.customer)}</address></div>"
    yield "<dl>"
    yield from (f"<dt>{escape(fact.label)}</dt><dd>{escape(fact.text)}</dd>" for fact in paper.facts)
    yield "</dl>"
    yield from _body(paper)
    for note in paper.notes:
        yield f'<p class="notes">{escape(note)}</p>'
    if paper.annex:
        yield f"<h2>{escape(paper.annex_title)}</h2>"
        for section in paper.annex:
            yield from _section(section)
    yield "</body>"
    yield "</html>"


def _body(paper: Paper) -> Iterator[str]:
    yield f"<table>{_head(paper.columns, (1, 2, 3))}<tbody>"
    for row in paper.lines:
        note = f"<small>{escape(row.note)}</small>" if row.note else ""
        cells = "".join(
            f'<td class="n">{escape(text)}</td>' for text in (row.quantity, row.unit_price, row.amount)
        )
        yield f"<tr><td>{escape(row.description)}{note}</td>{cells}</tr>"
    yield "</tbody><tfoot>"
    for total in paper.totals:
        strong = ' class="s"' if total.strong else ""
        label, amount = escape(total.label), escape(total.amount)
        yield f'<tr{strong}><td colspan="3">{label}</td><td class="n">{amount}</td></tr>'
    yield "</tfoot></table>"


def _section(section: Section) -> Iterator[str]:
    if section.title:
        yield f"<h3>{escape(section.title)}</h3>"
    yield f"<p>{escape(section.subtitle)}</p>"
    yield f"<table>{_head(section.columns, section.numbers)}<tbody>"
    for row in section.rows:
        cells = "".join(
            f'<td class="n">{escape(text)}</td>' if place in section.numbers else f"<td>{escape(text)}</td>"
            for place, text in enumerate(row)
        )
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table>"


def _head(columns: Sequence[str], numbers: Sequence[int]) -> str:
    cells = "".join(
        f'<th class="n">{escape(name)}</th>' if place in numbers else f"<th>{escape(name)}</th>"
        for place, name in enumerate(columns)
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _lines(texts: Sequence[str]) -> str:
    return escape("\n".join(texts))

"""Charts as SVG: equal figures give equal bytes."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

OURS, THEIRS, INK, FAINT = "#1f5fa8", "#aab4c0", "#24292f", "#6a737d"
SHADES = ("#a9c8ec", "#5e97d3", "#1f5fa8", "#0b2f5b")
_WIDTH = 760
_LABEL = 265
_VALUE = 110
_ROW = 26
_TOP = 54


class Bar(NamedTuple):
    """A row: parts that follow each other, each with its colour, and what is written after them."""

    label: str
    parts: Sequence[tuple[float, str]]
    text: str


def bars(
    title: str, note: str, rows: Sequence[Bar], *, legend: Sequence[tuple[str, str]] = (), mark: float = 0
) -> str:
    """Draw horizontal bars from zero; `mark` draws a line at a value."""
    longest = max([mark, *(sum(value for value, _ in row.parts) for row in rows)]) or 1.0
    scale = (_WIDTH - _LABEL - _VALUE) / longest
    height = _TOP + _ROW * len(rows) + 12
    out = _begin(height, title, note, legend)
    for number, row in enumerate(rows):
        top = _TOP + _ROW * number
        out.append(_text(_LABEL - 8, top + 16, row.label, anchor="end"))
        at = float(_LABEL)
        for value, colour in row.parts:
            width = value * scale
            out.append(
                f'<rect x="{at:.1f}" y="{top + 4}" width="{width:.1f}" height="{_ROW - 9}" fill="{colour}"/>'
            )
            at += width
        out.append(_text(at + 6, top + 16, row.text, colour=FAINT))
    if mark:
        x = _LABEL + mark * scale
        place = f'x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{height - 10}"'
        out.append(f'<line {place} stroke="{INK}" stroke-dasharray="3 3"/>')
    return _end(out)


def lines(title: str, note: str, across: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Draw lines over a logarithmic scale, each named where it ends."""
    height, left, right, bottom = 320, 70, _WIDTH - 90, 280
    values = [value for _, several in series for value in several]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def y_of(value: float) -> float:
        return bottom - (math.log10(value) - low) / (high - low) * (bottom - _TOP)

    def x_of(number: int) -> float:
        return left + number / max(1, len(across) - 1) * (right - left)

    out = _begin(height, title, note, ())
    for power in range(low, high + 1):
        y = y_of(10.0**power)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e1e4e8"/>')
        out.append(_text(left - 8, y + 4, f"{10.0**power:g}", anchor="end", colour=FAINT))
    for number, word in enumerate(across):
        out.append(_text(x_of(number), bottom + 20, word, anchor="middle", colour=FAINT))
    lowest = float(bottom + 30)
    for (name, several), colour in zip(series, SHADES, strict=False):
        points = " ".join(f"{x_of(number):.1f},{y_of(value):.1f}" for number, value in enumerate(several))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        # Names stand apart even where the lines end together.
        lowest = min(y_of(several[-1]) + 4, lowest - 14)
        out.append(_text(right + 8, lowest, name, colour=colour))
    return _end(out)


def _begin(height: int, title: str, note: str, legend: Sequence[tuple[str, str]]) -> list[str]:
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    font = 'font-family="system-ui, sans-serif" font-size="13"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>',
        _text(12, 41, note, colour=FAINT),
    ]
    at = _WIDTH - 12 - sum(26 + 8 * len(word) for word, _ in legend)
    for word, colour in legend:
        out.append(f'<rect x="{at}" y="12" width="12" height="12" fill="{colour}"/>')
        out.append(_text(at + 17, 23, word, colour=FAINT))
        at += 26 + 8 * len(word)
    return out


def _text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def _end(out: list[str]) -> str:
    return "\n".join([*out, "</svg>"]) + "\n"

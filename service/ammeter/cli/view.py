"""Draws answers for people. Everything that came from outside is text, never markup."""

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

_NUMBERS = frozenset(
    {
        "accepted",
        "amount",
        "conflict",
        "duplicate",
        "events",
        "input",
        "lines",
        "number",
        "output",
        "position",
        "quantity",
        "rejected",
        "requests",
        "total",
        "unit",
        "value",
    }
)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """Draw rows under column names; columns of numbers stand right."""
    drawn = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        number = column.split(" ")[0] in _NUMBERS
        drawn.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        drawn.add_row(*(Text(_text(cell)) for cell in row))
    return drawn


def fields(values: Mapping[str, object]) -> Table:
    """Draw the fields of one thing, leaving out what is empty."""
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for name, value in values.items():
        if value not in ("", None, [], ()):
            drawn.add_row(name, Text(_text(value)))
    return drawn


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return ", ".join(str(each) for each in value)
    return str(value)


def word(enum_name: str, prefix: str) -> str:
    """Turn STATE_ACTIVE into active."""
    return enum_name.removeprefix(f"{prefix}_").lower().replace("_", " ")


def thousands(number: str) -> str:
    """Group the integer digits of a decimal text: 1234.5 becomes 1,234.5."""
    sign = "-" if number.startswith("-") else ""
    whole, point, fraction = number.removeprefix("-").partition(".")
    return f"{sign}{int(whole):,}{point}{fraction}" if whole.isdecimal() else number

"""Many rows in one statement: one round trip for as many as there are."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

# What means something within a word of an array.
_QUOTED = str.maketrans({'"': '\\"', "\\": "\\\\"})


class _Untyped(sa.types.UserDefinedType[str]):
    """What a cast makes a parameter of its type, read once; a cast of text is read again for each row."""

    cache_ok = True


def one_of(column: sa.Column[Any], values: Iterable[str] | Iterable[int]) -> sa.ColumnElement[bool]:
    """Whether a column has one of the values, which are one parameter however many they are."""
    words = ['"' + one.translate(_QUOTED) + '"' if isinstance(one, str) else str(one) for one in values]
    # Written here: the driver takes far longer, value by value.
    array = sa.cast(sa.literal("{" + ",".join(words) + "}", _Untyped()), sa.ARRAY(column.type))
    return column == sa.any_(array)


def rows_of(table: sa.Table, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> sa.TableValuedAlias:
    """Make a source of rows to insert or update from, of a table's types.

    Values are JSON: decimals and times are text. What all rows have alike is
    sent and read once: names and values of columns cost more than what differs.
    """
    alike = {name: rows[0][name] for name in names if _is_one([row[name] for row in rows])}
    others = [name for name in names if name not in alike]
    kind: sa.ColumnClause[Any] = sa.literal_column(f"NULL::{table.name}")
    base = sa.func.json_populate_record(kind, _json(alike))
    documents = _json([{name: row[name] for name in others} for row in rows])
    return sa.func.json_populate_recordset(base, documents).table_valued(*names)


def _is_one(values: Sequence[object]) -> bool:
    return values.count(values[0]) == len(values)


def _json(value: object) -> sa.Cast[Any]:
    return sa.cast(sa.literal(json.dumps(value), sa.Text), sa.JSON)

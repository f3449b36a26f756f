"""Many rows in one statement: one round trip for as many as there are."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

# What means something within a word of an array.
_QUOTED = str.maketrans({'"': '\\"', "\\": "\\\\"})


class _Untyped(sa.types.UserDefinedType[str]):
    """What a cast makes a parameter of its type, read once; a cast of text is read again for each row."""

    cache_ok = True


class _RowsFrom(sa.sql.functions.FunctionElement[Any]):
    """Functions side by side, a row of each in each row: ROWS FROM."""

    name = "rows_from"
    inherit_cache = True


@compiles(_RowsFrom)
def _side_by_side(element: _RowsFrom, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - as it is
    functions = [compiler.process(one, **options) for one in element.clauses]
    return f"ROWS FROM ({', '.join(functions)})"


def one_of(column: sa.Column[Any], values: Iterable[str] | Iterable[int]) -> sa.ColumnElement[bool]:
    """Whether a column has one of the values, which are one parameter however many they are."""
    words = [_quoted(one) if isinstance(one, str) else str(one) for one in values]
    return column == sa.any_(_as(_array(words), sa.ARRAY(column.type)))


def rows_of(table: sa.Table, values: Mapping[str, Sequence[Any]]) -> dict[str, sa.ColumnElement[Any]]:
    """Make columns of a table's types to insert or update from, of the values of at least one row.

    Values are None, or as the table's columns have them: of JSON what can be
    written as it (not None), of arrays sequences. What all rows have alike is
    sent once. Columns cost both sides far less than objects by row.
    """
    kinds = {name: table.c[name].type for name in values}
    alike: dict[str, sa.ColumnElement[Any]] = {}
    arrays: dict[str, sa.ColumnElement[Any]] = {}
    documents: dict[str, sa.ColumnElement[Any]] = {}
    for name, column in values.items():
        kind = kinds[name]
        # One is sent in full, so that there are rows.
        if arrays and _is_alike(kind, column):
            alike[name] = _constant(kind, column[0])
        elif isinstance(kind, JSONB):
            documents[name] = sa.func.json_array_elements(_as(json.dumps(column), sa.JSON()))
        else:
            each = sa.Text() if isinstance(kind, sa.ARRAY) else kind
            arrays[name] = _as(_array(_words(kind, column)), sa.ARRAY(each))
    source = _RowsFrom(sa.func.unnest(*arrays.values()), *documents.values())
    columns = (sa.column(name, kinds[name]) for name in (*arrays, *documents))
    rows = source.table_valued(*columns).render_derived()
    made = {name: alike[name] if name in alike else rows.c[name] for name in values}
    # Arrays come as text, documents as JSON.
    return {
        name: sa.cast(one, kinds[name]) if isinstance(kinds[name], JSONB | sa.ARRAY) else one
        for name, one in made.items()
    }


def _is_alike(kind: sa.types.TypeEngine[Any], column: Sequence[Any]) -> bool:
    if column.count(column[0]) < len(column):
        return False
    # 1 and 1.00 are equal, and not the same.
    return not isinstance(kind, sa.Numeric) or len(set(map(str, column))) == 1


def _as(text: str, kind: sa.types.TypeEngine[Any]) -> sa.Cast[Any]:
    # Written as text here: the driver takes far longer, value by value.
    return sa.cast(sa.literal(text, _Untyped()), kind)


def _array(words: Iterable[str]) -> str:
    return "{" + ",".join(words) + "}"


def _quoted(word: str) -> str:
    return '"' + word.translate(_QUOTED) + '"'


def _words(kind: sa.types.TypeEngine[Any], column: Sequence[Any]) -> list[str]:
    """Write each value as a word of an array."""
    if isinstance(kind, sa.Text):
        return ["NULL" if one is None else _quoted(one) for one in column]
    write = _writer(kind)
    return ["NULL" if one is None else write(one) for one in column]


def _constant(kind: sa.types.TypeEngine[Any], value: Any) -> sa.ColumnElement[Any]:  # noqa: ANN401 - a column's
    if value is None:
        return sa.cast(sa.null(), kind)
    if isinstance(kind, JSONB):
        return _as(json.dumps(value), kind)
    return _as(_row_array(value) if isinstance(kind, sa.ARRAY) else _writer(kind)(value), kind)


def _writer(kind: sa.types.TypeEngine[Any]) -> Callable[[Any], str]:
    if isinstance(kind, sa.ARRAY):
        return lambda value: _quoted(_row_array(value))
    return datetime.isoformat if isinstance(kind, sa.DateTime) else str


def _row_array(value: Sequence[Any]) -> str:
    """Write an array that is one row's."""
    return _array("NULL" if one is None else _quoted(_text(one)) for one in value)


def _text(one: object) -> str:
    return one.isoformat() if isinstance(one, datetime) else str(one)

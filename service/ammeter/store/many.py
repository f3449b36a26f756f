"""Many rows in one statement: one round trip for as many as there are."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa


def one_of(column: sa.Column[Any], values: Iterable[Any]) -> sa.ColumnElement[bool]:
    """Whether a column has one of the values, which are one parameter however many they are."""
    return column == sa.any_(sa.cast(list(values), sa.ARRAY(column.type)))


def rows_of(table: sa.Table, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> sa.TableValuedAlias:
    """Make a source of rows to insert or update from, of a table's types.

    Values are JSON: decimals and times are text.
    """
    kind: sa.ColumnClause[Any] = sa.literal_column(f"NULL::{table.name}")
    document = sa.cast(sa.literal(json.dumps(rows), sa.Text), sa.JSON)
    return sa.func.json_populate_recordset(kind, document).table_valued(*names)

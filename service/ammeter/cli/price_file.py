"""Reads prices from CSV or JSON, exactly: no number ever becomes a float.

A row has model, token_type and unit_amount; `per` (1 if left out) says of how
many units the amount is, as price lists tend to be per 1,000,000 tokens;
effective_time is RFC 3339. An amount left empty withdraws the price.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, Inexact, InvalidOperation, localcontext

from ammeter.domain.quantity import SCALE_DIGITS, decimal_text, parse_decimal
from ammeter.errors import InvalidInputError
from ammeter.v1 import price_list_pb2 as pb

_NEEDED = frozenset({"model", "token_type", "unit_amount"})
_COLUMNS = _NEEDED | {"per", "effective_time"}
_EXACT_DIGITS = 60


class PriceFileError(Exception):
    """The file cannot be read as prices; the text says where and why."""


def read_prices(text: str) -> list[pb.PriceEntry]:
    """Read all rows; raises PriceFileError for the first that is wrong."""
    rows = _json_rows(text) if text.lstrip()[:1] in {"[", "{"} else _csv_rows(text)
    entries = []
    for where, row in rows:
        try:
            entries.append(_entry(row))
        except (PriceFileError, InvalidInputError, ValueError) as error:
            raise PriceFileError(f"{where}: {error}") from None
    return entries


def _csv_rows(text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        _check_names("line 1", set(names))
        for row in reader:
            if None in row or None in row.values():
                message = f"line {reader.line_num}: has not as many columns as the header"
                raise PriceFileError(message)
            yield f"line {reader.line_num}", {name: value.strip() for name, value in row.items()}
    except csv.Error as error:
        message = f"line {reader.line_num}: {error}"
        raise PriceFileError(message) from None


def _json_rows(text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
    except ValueError as error:
        message = f"is not JSON: {error}"
        raise PriceFileError(message) from None
    if isinstance(found, dict):
        found = found.get("entries")
    if not isinstance(found, list):
        message = 'is no list of prices, nor an object with "entries"'
        raise PriceFileError(message)
    for index, row in enumerate(found):
        where = f"entries[{index}]"
        if not isinstance(row, dict) or not all(isinstance(value, str | None) for value in row.values()):
            message = f"{where}: is no object of texts and numbers"
            raise PriceFileError(message)
        _check_names(where, row.keys() | {"unit_amount"})
        yield where, {name: value or "" for name, value in row.items()}


def _check_names(where: str, names: set[str]) -> None:
    missing, unknown = sorted(_NEEDED - names), sorted(names - _COLUMNS)
    if missing:
        message = f"{where}: {', '.join(missing)} is missing"
        raise PriceFileError(message)
    if unknown:
        message = f"{where}: {unknown[0]!r} is none of {', '.join(sorted(_COLUMNS))}"
        raise PriceFileError(message)


def _entry(row: Mapping[str, str]) -> pb.PriceEntry:
    entry = pb.PriceEntry(
        model=row["model"],
        token_type=row["token_type"],
        unit_amount=_amount(row.get("unit_amount", ""), row.get("per", "")),
    )
    if row.get("effective_time"):
        entry.effective_time.FromDatetime(_time(row["effective_time"]))
    return entry


def _amount(text: str, per: str) -> str:
    """Divide an amount by the units it is for; refuses what has no end as a decimal."""
    if not text:
        return ""
    try:
        amount = Decimal(text)  # JSON may write 2.5e-06
    except InvalidOperation:
        message = f"unit_amount {text!r} is not a decimal number"
        raise PriceFileError(message) from None
    units = parse_decimal(per, "per") if per else Decimal(1)
    if units <= 0 or not amount.is_finite():
        message = "per must be more than zero, and unit_amount a number"
        raise PriceFileError(message)
    with localcontext(prec=_EXACT_DIGITS) as context:
        context.traps[Inexact] = True
        try:
            found = decimal_text(amount / units)
        except Inexact:
            message = (
                f"{text} per {per} does not end as a decimal: give the amount of another number of units"
            )
            raise PriceFileError(message) from None
    if len(found.partition(".")[2]) > SCALE_DIGITS:
        message = f"{found} a unit has more than {SCALE_DIGITS} digits after the point"
        raise PriceFileError(message)
    return found


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"effective_time {text!r} is not RFC 3339, such as 2026-01-31T00:00:00Z"
        raise PriceFileError(message) from None
    if len(text) == len("2026-01-31"):
        return moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        message = f"effective_time {text!r} has no zone: add Z or an offset"
        raise PriceFileError(message)
    return moment

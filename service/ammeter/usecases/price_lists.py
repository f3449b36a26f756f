"""Create price lists, take prices in, and read what they say."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from ammeter.domain.late import Repricing
from ammeter.domain.minute import minute_of
from ammeter.domain.price import LlmPrice, Price
from ammeter.domain.price_import import (
    MAX_LIST_ENTRIES,
    Change,
    EntryDraft,
    check_price_list,
    find_changes,
    read_entries,
)
from ammeter.domain.price_list import Book, Entry, Layer, PriceList, holding
from ammeter.errors import AlreadyExistsError, ConflictError, InternalError, NotFoundError, PreconditionError
from ammeter.store import clocks
from ammeter.store import price_lists as store
from ammeter.store.db import Tx

_BOOKS = 64

# A price list's key, and a token type.
Listed = tuple[str, str]


class PriceImport(NamedTuple):
    """Prices as sent; `effective_time` is of entries without one, and of what is withdrawn as missing."""

    price_list_key: str
    entries: Sequence[EntryDraft]
    effective_time: datetime
    withdraw_missing: bool = False
    layer: Layer = Layer.LIST
    dry_run: bool = False
    etag: str = ""


class Imported(NamedTuple):
    """What an import changed, or would change, and the list after it."""

    changes: Sequence[Change]
    unchanged_count: int
    price_list: PriceList


class Shelf:
    """Books of price lists that were read, kept while their list has not changed."""

    def __init__(self) -> None:
        """Start empty."""
        self._books: dict[tuple[int, store.Version, str], Book] = {}

    def book(self, tx: Tx, one: Listed) -> Book:
        """Give what a list says of a token type."""
        price_list_key, token_type = one
        version = store.version(tx, price_list_key)
        if version is None:
            raise InternalError(f"price list {price_list_key} of a rate card is gone")
        key = tx.tenant_id, version, token_type
        book = self._books.get(key)
        if book is None:
            book = store.book(tx, version.price_list_id, token_type)
            # Read after its version, it may be newer: then the next reader sees that version, and reads anew.
            self._books[key] = book
            for old in list(self._books)[:-_BOOKS]:
                self._books.pop(old, None)
        return book


def create_price_list(tx: Tx, draft: PriceList, now: datetime) -> PriceList:
    """Add an empty price list; raises InvalidInputError, AlreadyExistsError."""
    check_price_list(draft)
    made = store.insert(tx, draft, now)
    if made is None:
        key = draft.price_list_key
        message = f"there is a price list {key!r} already: choose another key"
        raise AlreadyExistsError(message, field="price_list.price_list_key")
    return made


def get_price_list(tx: Tx, price_list_key: str, *, lock: bool = False) -> PriceList:
    """Read a price list; raises NotFoundError."""
    found = None if "\0" in price_list_key else store.get(tx, price_list_key, lock=lock)
    if found is None:
        raise NotFoundError("price list", price_list_key)
    return found


def import_prices(tx: Tx, sent: PriceImport, now: datetime) -> Imported:
    """Take entries in, or say what that would change; what says what holds already is not written.

    Raises NotFoundError, InvalidInputError with all faults, ConflictError when
    `etag` is stale, PreconditionError when the list would grow too long.
    """
    minute = minute_of(sent.effective_time)
    found = get_price_list(tx, sent.price_list_key, lock=True)
    if sent.etag and sent.etag.strip('"') != str(found.version):
        raise ConflictError(
            "the price list was changed meanwhile: look at what would change, then send its etag"
        )
    wanted = read_entries(sent.entries, minute, sent.layer)
    there = store.entries(tx, found.price_list_id, sent.layer)
    missing_at = minute if sent.withdraw_missing else None
    diff = find_changes(there, wanted, missing_at, sent.layer)
    if sent.dry_run or not diff.changes:
        return Imported(diff.changes, diff.unchanged_count, found)
    if store.count_entries(tx, found.price_list_id) + len(diff.changes) > MAX_LIST_ENTRIES:
        raise PreconditionError(
            f"price list {found.price_list_key!r} would have more than {MAX_LIST_ENTRIES} entries: "
            "begin another",
            reason="LIMIT_EXCEEDED",
        )
    store.write(tx, found, [change.entry for change in diff.changes], now)
    if any(change.entry.effective_minute < minute_of(now) for change in diff.changes):
        clocks.set_back(tx, None)  # what is billed may have been billed at another price
    return Imported(diff.changes, diff.unchanged_count, get_price_list(tx, found.price_list_key))


def prices_at(tx: Tx, price_list_key: str, model: str, time: datetime) -> list[Entry]:
    """Read the entries of a list that hold at a time, by model and token type."""
    found = get_price_list(tx, price_list_key)
    return holding(store.entries(tx, found.price_list_id, model=model), minute_of(time))


def listed(used: Iterable[Price | None]) -> list[Listed]:
    """Say what of which lists prices are from."""
    return sorted({(one.price_list_key, one.token_type) for one in used if isinstance(one, LlmPrice)})


def repricings(tx: Tx, used: Iterable[Listed], since: datetime) -> dict[Listed, list[Repricing]]:
    """Find what was priced anew by lists since a time."""
    found = {}
    for price_list_key, token_type in used:
        there = get_price_list(tx, price_list_key)
        found[price_list_key, token_type] = store.repricings(tx, there.price_list_id, token_type, since)
    return found

"""Take entries into a price list: what is wrong with them, and what they would change."""

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from ammeter.domain import keys
from ammeter.domain.minute import END
from ammeter.domain.price_form import Form
from ammeter.domain.price_list import Entry, Layer, PriceList
from ammeter.errors import InvalidInputError, Violation

MAX_ENTRIES = 10_000
MAX_LIST_ENTRIES = 200_000


class EntryDraft(NamedTuple):
    """An entry as sent: the amount is text, empty to withdraw; no minute: that of the import."""

    model: str
    token_type: str
    unit_amount: str
    effective_minute: int | None = None


class Change(NamedTuple):
    """What an entry does in its layer: `before` held without it, `until` the entry after it takes over."""

    entry: Entry
    before: Decimal | None
    until: int


class Diff(NamedTuple):
    """Changes by model, token type and minute; how many entries say what holds already."""

    changes: tuple[Change, ...]
    unchanged_count: int


def check_price_list(draft: PriceList) -> None:
    """Refuse a price list that cannot be; raises InvalidInputError."""
    violations = [
        *keys.catalog_key("price_list.price_list_key", draft.price_list_key),
        *keys.text("price_list.name", draft.name),
        *keys.currency("price_list.currency", draft.currency),
    ]
    if violations:
        raise InvalidInputError(violations)


def read_entries(drafts: Sequence[EntryDraft], minute: int, layer: Layer) -> list[Entry]:
    """Read the entries of an import that takes effect at a minute; raises InvalidInputError."""
    if len(drafts) > MAX_ENTRIES:
        raise InvalidInputError([Violation("entries", f"must be at most {MAX_ENTRIES}: send them in parts")])
    faults: list[Violation] = []
    found: dict[tuple[str, str, int], int] = {}
    entries = []
    for index, draft in enumerate(drafts):
        path = f"entries[{index}]"
        form = Form(path, {"unit_amount": draft.unit_amount}, faults)
        faults += _check_model(f"{path}.model", draft.model)
        faults += keys.catalog_key(f"{path}.token_type", draft.token_type)
        at = minute if draft.effective_minute is None else draft.effective_minute
        first = found.setdefault((draft.model, draft.token_type, at), index)
        if first != index:
            form.fault("", f"is about the same model, token type and time as entries[{first}]: keep one")
        entries.append(Entry(draft.model, draft.token_type, at, form.optional("unit_amount"), layer))
    if faults:
        raise InvalidInputError(faults)
    return entries


def _check_model(path: str, model: str) -> list[Violation]:
    return keys.text(path, model) if model else [Violation(path, "is needed: the name that events carry")]


def find_changes(
    existing: Iterable[Entry], wanted: Sequence[Entry], missing_at: int | None, layer: Layer
) -> Diff:
    """Compare entries with those there are in their layer; what says what holds already changes nothing.

    With `missing_at`, what has a price at that minute and is not wanted is
    withdrawn there.
    """
    curves: dict[tuple[str, str], dict[int, Decimal | None]] = {}
    for entry in existing:
        curves.setdefault((entry.model, entry.token_type), {})[entry.effective_minute] = entry.unit_amount
    if missing_at is not None:
        wanted = [*wanted, *_missing(curves, wanted, missing_at, layer)]
    changed: list[tuple[Entry, Decimal | None]] = []
    for entry in sorted(wanted, key=lambda each: each.effective_minute):
        curve = curves.setdefault((entry.model, entry.token_type), {})
        before = _holding(curve, entry.effective_minute)
        if before != entry.unit_amount:
            curve[entry.effective_minute] = entry.unit_amount
            changed.append((entry, before))
    changes = [
        Change(entry, before, _next(curves[entry.model, entry.token_type], entry.effective_minute))
        for entry, before in changed
    ]
    return Diff(tuple(sorted(changes, key=lambda each: each.entry[:3])), len(wanted) - len(changes))


def _missing(
    curves: dict[tuple[str, str], dict[int, Decimal | None]],
    wanted: Collection[Entry],
    minute: int,
    layer: Layer,
) -> list[Entry]:
    named = {(entry.model, entry.token_type) for entry in wanted}
    return [
        Entry(*key, minute, None, layer)
        for key, curve in curves.items()
        if key not in named and _holding(curve, minute) is not None
    ]


def _holding(curve: dict[int, Decimal | None], minute: int) -> Decimal | None:
    last = max((each for each in curve if each <= minute), default=None)
    return None if last is None else curve[last]


def _next(curve: dict[int, Decimal | None], minute: int) -> int:
    return min((each for each in curve if each > minute), default=END)

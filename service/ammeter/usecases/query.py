"""Aggregate a meter: from blocks in the database and partials in memory."""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from ammeter.domain.meter import ZERO_AGGREGATIONS, Meter
from ammeter.domain.quantity import from_scaled
from ammeter.domain.window import MINUTES_PER_DAY, boundaries
from ammeter.errors import InvalidInputError, PreconditionError, Violation
from ammeter.store import blocks, meters, owners
from ammeter.store.db import Database, Tx
from ammeter.usecases.engine import Answers, Engine, EngineError, Query, QueryResult, public

MAX_GROUP_BY = 8
_ATTEMPTS = 20
_BLOCKS_AT_A_TIME = 32
_POLL_SECONDS = 0.005

T = TypeVar("T")


@dataclass(frozen=True)
class UsageQuery:
    """What QueryUsage asks; times are minutes since the epoch, [from, to)."""

    meter_key: str
    from_minute: int
    to_minute: int
    size: str
    zone: ZoneInfo
    group_by: tuple[str, ...]
    subjects: tuple[str, ...]
    customer_keys: tuple[str, ...]
    filters: tuple[tuple[str, tuple[str, ...]], ...]
    fill: bool


@dataclass(frozen=True)
class UsageRow:
    """One row; `value` is None in a filled window of a meter without a zero."""

    from_minute: int
    to_minute: int
    groups: tuple[str, ...]
    value: Decimal | None
    event_count: int


Key = tuple[int, tuple[str, ...]]


def wait_for_position(engine: Engine, tenant_id: int, minimum: int, wait_seconds: float) -> None:
    """Wait until `minimum` is reflected; raises PreconditionError (POSITION_NOT_REACHED)."""
    deadline = time.monotonic() + wait_seconds
    while (reached := engine.position(tenant_id)) < minimum:
        if time.monotonic() > deadline:
            message = f"position {minimum} is not reached, the head is {reached}: ask again later"
            raise PreconditionError(message, reason="POSITION_NOT_REACHED")
        time.sleep(_POLL_SECONDS)


class Page(NamedTuple):
    """Rows after a window and its groups (None: from the first), and how many."""

    after: Key | None
    limit: int


class Form(NamedTuple):
    """What several customers are asked alike: windows between minutes, what to group by, filters."""

    minutes: tuple[int, ...]
    group_by: tuple[str, ...]
    filters: tuple[tuple[str, tuple[str, ...]], ...]


def meter_usage(  # noqa: PLR0913 - the columns of one query
    db: Database,
    engine: Engine,
    tenant_id: int,
    revision_id: int,
    edges: Sequence[int],
    *,
    group_by: Sequence[str] = (),
    filters: Sequence[tuple[str, Sequence[str]]] = (),
    subjects: Sequence[str] = (),
    customers: Sequence[int] = (),
) -> QueryResult:
    """Aggregate one meter revision over [edges[0], edges[-1]), cut at the edges (minutes).

    Reads again when a checkpoint overtakes it. Raises errors of the API.
    """

    def read() -> QueryResult:
        with db.tenant(tenant_id) as tx:
            payloads, checkpoint = blocks.read(
                tx.conn, tenant_id, revision_id, *_days(edges[0], edges[-1]), subjects, customers
            )
        return engine.query(
            tenant_id,
            revision_id,
            payloads,
            checkpoint,
            edges,
            group_by,
            filters,
            subjects,
            customers,
        )

    return _until_fresh(read)


def _usage_page(
    db: Database,
    engine: Engine,
    tenant_id: int,
    revision_id: int,
    asked: Form,
    chosen: tuple[Sequence[str], Sequence[int]],
    page: Page,
) -> QueryResult:
    """Answer a page as meter_usage would, reading no more blocks than it needs.

    `chosen` are subjects and customers.
    """
    edges = asked.minutes
    statement = blocks.reading(
        tenant_id, revision_id, *_days(edges[0], edges[-1]), *chosen, _course(asked, page.after)
    )

    def read() -> QueryResult:
        with db.tenant(tenant_id, snapshot=True) as tx:
            found = blocks.read_in_order(tx.conn, statement, _BLOCKS_AT_A_TIME)
            with closing(found):
                payloads, checkpoint = next(found)
                form = edges, asked.group_by, asked.filters
                query = Query(engine, tenant_id, revision_id, checkpoint, *form, *chosen, page)
                while not query.add(payloads):
                    payloads, _ = next(found, ([], 0))
                    if not payloads:
                        break
        return query.finish()

    return _until_fresh(read)


def _course(asked: Form, after: Key | None) -> blocks.Course:
    """Order blocks by the first window that their day has a part in; leave what the page before had."""
    edges = asked.minutes
    begun = edges[0] // MINUTES_PER_DAY
    days = [begun]
    for start, end in pairwise(edges[1:]):
        first_whole = -(-start // MINUTES_PER_DAY)
        if first_whole * MINUTES_PER_DAY < end:
            days.append(first_whole)
    if after is None or not after[1] or after[0] > 0 or asked.group_by[:1] != ("subject",):
        return blocks.Course(days, begun, b"")
    return blocks.Course(days, edges[1] // MINUTES_PER_DAY, after[1][0].encode())


def survey_usage(
    db: Database,
    engine: Engine,
    tenant_id: int,
    revision_id: int,
    forms: Sequence[Form],
    asked: Sequence[tuple[int, int]],
) -> Answers:
    """Aggregate one meter revision for many customers in one pass; asked: (customer, index of a form).

    As meter_usage otherwise.
    """
    days = _days(min(form.minutes[0] for form in forms), max(form.minutes[-1] for form in forms))
    customers = sorted({customer for customer, _ in asked})

    def read() -> Answers:
        with db.tenant(tenant_id) as tx:
            payloads, checkpoint = blocks.read(tx.conn, tenant_id, revision_id, *days, (), customers)
        return engine.survey(tenant_id, revision_id, payloads, checkpoint, forms, asked)

    return _until_fresh(read)


def _days(first_minute: int, last_minute: int) -> tuple[int, int]:
    return first_minute // MINUTES_PER_DAY, (last_minute - 1) // MINUTES_PER_DAY + 1


def _until_fresh(read: Callable[[], T]) -> T:
    retrying = Retrying(
        retry=retry_if_exception(lambda e: isinstance(e, EngineError) and e.reason == "STALE_SNAPSHOT"),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_fixed(0.01),
        reraise=True,
    )
    try:
        return retrying(read)
    except EngineError as error:
        raise public(error) from error


def _check(query: UsageQuery, meter: Meter) -> None:
    violations = []
    known = {"subject", "customer", *meter.dimensions}
    if len(query.group_by) > MAX_GROUP_BY or len(set(query.group_by)) < len(query.group_by):
        violations.append(Violation("group_by", f"must be at most {MAX_GROUP_BY} different names"))
    for index, name in enumerate(query.group_by):
        if name not in known:
            why = f"{name!r} is no dimension of meter {meter.meter_key!r}: it has {', '.join(sorted(known))}"
            violations.append(Violation(f"group_by[{index}]", why))
    for index, (name, _) in enumerate(query.filters):
        if name not in meter.dimensions:
            why = f"{name!r} is no dimension of meter {meter.meter_key!r}; use subjects or customer_keys"
            violations.append(Violation(f"filters[{index}].dimension", why))
    if violations:
        raise InvalidInputError(violations)


def _customer_ids(tx: Tx, keys: Sequence[str]) -> list[int]:
    found = owners.customer_numbers(tx, keys)
    unknown = [
        Violation(f"customer_keys[{index}]", f"there is no customer {key!r}")
        for index, key in enumerate(keys)
        if key not in found
    ]
    if unknown:
        raise InvalidInputError(unknown, reason="NOT_FOUND")
    return list(found.values())


def _customer_keys(db: Database, tenant_id: int, numbers: set[str]) -> dict[str, str]:
    with db.tenant(tenant_id) as tx:
        found = owners.customer_keys(tx, [int(number) for number in numbers if number])
    return {str(number): key for number, key in found.items()} | {"": ""}


def usage_report(
    db: Database, engine: Engine, tenant_id: int, query: UsageQuery, after: Key | None, limit: int
) -> tuple[list[UsageRow], Key | None, int]:
    """Answer QueryUsage: rows after `after`, where the next page starts, and the position."""
    with db.tenant(tenant_id) as tx:
        meter = meters.get_meter(tx, query.meter_key)
        revision_id = meters.served_revision(meter)
        _check(query, meter)
        customer_ids = _customer_ids(tx, query.customer_keys)
    edges = boundaries(query.from_minute, query.to_minute, query.size, query.zone)
    # To fill, all groups must be known; otherwise windows before the page are not looked at.
    passed = 0 if after is None or query.fill else min(after[0], len(edges) - 2)
    asked = Form(tuple(edges[passed:]), query.group_by, query.filters)
    if query.fill or "customer" in query.group_by:
        # The engine knows customers by number, and so in another order.
        result = meter_usage(
            db,
            engine,
            tenant_id,
            revision_id,
            asked.minutes,
            group_by=query.group_by,
            filters=query.filters,
            subjects=query.subjects,
            customers=customer_ids,
        )
    else:
        begun = after and (min(after[0] - passed, len(edges)), after[1])
        page_of = Page(begun, limit + 1)
        result = _usage_page(
            db, engine, tenant_id, revision_id, asked, (query.subjects, customer_ids), page_of
        )
    cells = _cells(db, tenant_id, query, result, passed)
    keys = sorted(cells)
    if query.fill:
        page = list(_filled_keys(len(edges) - 1, sorted({key[1] for key in keys}), after, limit + 1))
    else:
        start = bisect_right(keys, after) if after is not None else 0
        page = keys[start : start + limit + 1]
    zero = Decimal(0) if meter.aggregation in ZERO_AGGREGATIONS else None
    rows = [
        UsageRow(edges[window], edges[window + 1], groups, *cells.get((window, groups), (zero, 0)))
        for window, groups in page[:limit]
    ]
    return rows, page[limit - 1] if len(page) > limit else None, result.position


def _cells(
    db: Database, tenant_id: int, query: UsageQuery, result: QueryResult, passed: int
) -> dict[Key, tuple[Decimal | None, int]]:
    columns = list(result.groups)
    for index, name in enumerate(query.group_by):
        if name == "customer":
            keys = _customer_keys(db, tenant_id, set(columns[index]))
            columns[index] = [keys[number] for number in columns[index]]
    windows = [passed + window for window in result.windows]
    groups = list(zip(*columns, strict=True)) if columns else [()] * len(windows)
    values = zip(map(from_scaled, result.values), result.event_counts, strict=True)
    return dict(zip(zip(windows, groups, strict=True), values, strict=True))


def _filled_keys(
    windows: int, groups: Sequence[tuple[str, ...]], after: Key | None, limit: int
) -> Iterator[Key]:
    """Enumerate every window of every group, after a key, without making them all."""
    if not groups:
        return
    start = 0 if after is None else after[0] * len(groups) + bisect_right(groups, after[1])
    for number in range(start, min(start + limit, windows * len(groups))):
        yield number // len(groups), groups[number % len(groups)]

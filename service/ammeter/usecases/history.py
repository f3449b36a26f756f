"""Tell how an entitlement came to what is left of it: by windows, by segments, and in plain terms."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ammeter.domain.counter import counter_timeline
from ammeter.domain.entitlement import Access, Entitlement, decide
from ammeter.domain.explain import reserved, story, verdict, whence
from ammeter.domain.grant import Step, Terms, Timeline, burn_down, history_start, make_timeline
from ammeter.domain.history import Segment, Window, present_segment, segments, windows
from ammeter.domain.minute import minute_of
from ammeter.domain.reservation import Key
from ammeter.domain.window import boundaries
from ammeter.errors import InvalidInputError, PreconditionError, Violation, invalid
from ammeter.store import entitlements as store
from ammeter.store.db import Database
from ammeter.store.entitlements import Held
from ammeter.usecases.check import Check, check_now, customer_of
from ammeter.usecases.counters import Count, put_for_customer
from ammeter.usecases.engine import Engine, EngineError, public
from ammeter.usecases.entitle import get_entitlement
from ammeter.usecases.live import Live, read_again

MAX_WINDOWS = 1000
MAX_SPANS = 20_000
# Numbers of counters that live for one question; the database hands out small ones.
_numbers = count(1 << 62)


class History(NamedTuple):
    """What GetEntitlementHistory tells; the position is what it reflects at least."""

    windows: list[Window]
    segments: list[Segment]
    position: int


class Explanation(NamedTuple):
    """A check's answer and what it follows from.

    `entitlement` is None where none decided; `segment` is that around now, with
    all that counts now, None unless the entitlement is metered.
    """

    access: Access
    entitlement: Entitlement | None
    segment: Segment | None
    lines: list[str]
    position: int


class Question(NamedTuple):
    """What history to tell: by default of the present period, in the customer's zone. size: HOUR or DAY."""

    entitlement_id: str
    from_time: datetime | None = None
    to_time: datetime | None = None
    size: str = "DAY"
    zone: ZoneInfo | None = None


def entitlement_history(
    db: Database, engine: Engine, tenant_id: int, question: Question, now: datetime
) -> History:
    """Replay the grants of a metered entitlement over [from_time, to_time)."""
    entitlement_id, from_time, to_time, size, zone = question
    with db.tenant(tenant_id, snapshot=True) as tx:
        held = get_entitlement(tx, entitlement_id)
    terms = held.terms
    if terms is None:
        raise invalid(
            "entitlement_id", f"names a {held.entitlement.kind.value} entitlement: it has no balance"
        )
    first, last = _span(terms, from_time, to_time, now)
    edges = boundaries(first, last, size, zone or ZoneInfo(terms.schedule.rhythm.time_zone))
    if len(edges) > MAX_WINDOWS + 1:
        raise invalid(
            "window_size", f"cuts the span into more than {MAX_WINDOWS} windows: ask for less of it"
        )
    start = history_start(terms, held.grants, first)
    if start is None:
        raise PreconditionError(f"entitlement {entitlement_id} is not active at that time")
    timeline = make_timeline(terms, held.grants, start, last, edges)
    steps, position = replay(db, engine, held, timeline, len(timeline.spans))
    return History(list(windows(timeline, steps, edges)), list(segments(timeline, steps, first)), position)


def _span(
    terms: Terms, from_time: datetime | None, to_time: datetime | None, now: datetime
) -> tuple[int, int]:
    schedule = terms.schedule
    present = minute_of(now)
    last = min(present + 1 if to_time is None else minute_of(to_time), schedule.end_minute)
    period = schedule.around(max(min(present, last - 1), schedule.start_minute))
    first = schedule.start_minute
    if from_time is not None:
        first = max(minute_of(from_time), schedule.start_minute)
    elif period is not None:
        first = period.start_minute
    violations = []
    if to_time is not None and to_time > now:
        violations.append(Violation("to_time", "must not lie ahead"))
    if first >= last:
        why = "leaves no minute of the entitlement before to_time, its end or now"
        violations.append(Violation("from_time", why))
    if violations:
        raise InvalidInputError(violations)
    return first, last


def replay(
    db: Database, engine: Engine, held: Held, timeline: Timeline, spans: int
) -> tuple[list[Step], int]:
    """Burn the first spans of a timeline down on a counter that is put for this alone.

    Returns the steps and a position that they reflect at least; raises PreconditionError.
    """
    if held.revision_id is None:
        raise PreconditionError(
            "the feature's meter is being built: ask again later", reason="METER_BUILDING"
        )
    if len(timeline.spans) > MAX_SPANS:
        raise PreconditionError(f"grants changed more than {MAX_SPANS} times over that span: ask for less")
    number = next(_numbers)
    mine = held._replace(entitlement=replace(held.entitlement, counter=number))
    counter = Count(mine, held.revision_id, timeline.edges, frozenset(), (), timeline)

    @read_again
    def put() -> None:
        with db.engine(snapshot=True) as conn:
            put_for_customer(conn, engine, [counter])

    try:
        put()
        position = engine.position(held.tenant_id)
        _, running = engine.running(held.tenant_id, number, timeline.resets)
    except EngineError as error:
        raise public(error) from error
    finally:
        engine.drop_counter(held.tenant_id, number)
    return burn_down(timeline, running[:spans]), position


def explain_access(live: Live, db: Database, tenant_id: int, asked: Check, now: datetime) -> Explanation:
    """Answer a check and say what the answer follows from."""
    minute = minute_of(now)
    position = live.engine.position(tenant_id)
    access = check_now(live, tenant_id, asked, minute)
    customer = customer_of(live, tenant_id, asked, minute)
    held = None
    if customer is not None:
        with db.tenant(tenant_id, snapshot=True) as tx:
            found = store.overlapping(
                tx, customer.customer_id, asked.feature_key, now, now + timedelta(microseconds=1)
            )
            held = get_entitlement(tx, found[0].entitlement.entitlement_id) if found else None
    if held is None:
        return Explanation(access, None, None, [verdict(access)], position)
    terms = held.terms
    if terms is None:
        return Explanation(
            access, held.entitlement, None, [whence(held.entitlement), verdict(access)], position
        )
    timeline, steps, position = _present(db, live.engine, held, terms, now)
    segment = present_segment(timeline, steps)
    period, usage = timeline.spans[len(steps) - 1].period, steps[-1].running
    held_now = live.book.held(Key(tenant_id, held.entitlement.customer_id, asked.feature_key))
    access = decide(
        segment.left_at_end,
        usage,
        terms.allowance_at(period.start_minute) or 0,
        asked.amount,
        (period.start_minute, period.end_minute),
        held=held_now,
        soft_limit=held.entitlement.stage_at(now).soft_limit,
    )
    lines = [
        whence(held.entitlement),
        *story(terms, period, segment, usage),
        *reserved(access),
        verdict(access, asked.amount),
    ]
    return Explanation(access, held.entitlement, segment, lines, position)


def _present(
    db: Database, engine: Engine, held: Held, terms: Terms, now: datetime
) -> tuple[Timeline, list[Step], int]:
    """Burn down to the span around now: the same spans as checks keep."""
    found = counter_timeline(terms, held.grants, now)
    index = found[0].index(minute_of(now)) if found else None
    if found is None or index is None:
        raise PreconditionError("the entitlement is not active now: ask again")
    steps, position = replay(db, engine, held, found[0], index + 1)
    return found[0], steps, position

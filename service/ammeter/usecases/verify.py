"""Read the whole history again, and recompute everything that is derived from it.

`Chain` and `Derived` judge rows and know no database; `verify` feeds them.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from ammeter.store import chain, credit_ledger, meters, segments
from ammeter.store.chain import BlockRow, HeadRow, SegmentRow
from ammeter.store.db import Database
from ammeter.store.meters import StoredRevision
from ammeter.usecases.engine import Block, EngineError, MeterBuilder, merge_blocks, verify_segment
from ammeter.usecases.meters import spec_of

_START = bytes(32)
_MAX_BUILD_ROWS = 500_000
_EPOCH_DAY = date(1970, 1, 1)
_MAX_DAY = 2_932_896  # 9999-12-31


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it was written. position: of a segment; meter_key, day: of windows."""

    tenant_id: int
    what: str
    position: int | None = None
    meter_key: str = ""
    day: int | None = None

    def __str__(self) -> str:
        """Name the place, then the fault."""
        place = [f"tenant {self.tenant_id}"]
        if self.position is not None:
            place.append(f"position {self.position}")
        if self.meter_key:
            place.append(f"meter {self.meter_key}")
        if self.day is not None:
            place.append(f"day {day_text(self.day)}")
        return f"{', '.join(place)}: {self.what}"


@dataclass
class Report:
    """What was read, and what was found."""

    faults: list[Fault] = field(default_factory=list)
    tenants: int = 0
    segments: int = 0
    rows: int = 0
    events: int = 0
    blocks: int = 0
    credit_transactions: int = 0
    seconds: float = 0.0


def day_text(day: int) -> str:
    """Write a day since the epoch as a date, if it is one."""
    return str(_EPOCH_DAY + timedelta(days=day)) if 0 <= day <= _MAX_DAY else f"number {day}"


class Chain:
    """Checks the segments of one tenant, in order, and its head."""

    def __init__(self, tenant_id: int, epoch: int) -> None:
        """`epoch`: the writer's, now."""
        self._tenant_id = tenant_id
        self._writer_epoch = epoch
        self._epoch = 0
        self._position = 0
        self._digest = _START
        # What the digest before may have been: several after a fault, none after a gap.
        self._before: list[bytes] = [_START]

    def check(self, row: SegmentRow) -> Iterator[Fault]:
        """Check the next row."""
        if row.tenant_id != self._tenant_id:
            yield self._fault(row.position, f"the row belongs to tenant {row.tenant_id}")
        missing = row.first - self._position - 1
        if missing > 0:
            first, last = self._position + 1, row.first - 1
            text = f"missing, and all up to {last}" if missing > 1 else "missing"
            yield self._fault(first, text)
            self._before = []
        elif missing < 0:
            yield self._fault(row.first, f"out of order: it comes after {self._position}")
        if not self._epoch <= row.epoch <= self._writer_epoch:
            text = (
                f"epoch {row.epoch} does not lie between {self._epoch} and the writer's {self._writer_epoch}"
            )
            yield self._fault(row.position, text)
        yield from self._check_digest(row)
        self._position, self._digest, self._epoch = row.position, row.digest, max(self._epoch, row.epoch)

    def _check_digest(self, row: SegmentRow) -> Iterator[Fault]:
        computed = []
        try:
            for before in self._before or [_START]:
                computed.append(  # noqa: PERF401 - what was computed before an error counts
                    verify_segment(
                        before,
                        row.tenant_id,
                        row.position,
                        row.event_count,
                        row.min_time_us,
                        row.max_time_us,
                        row.recorded_us,
                        row.codec,
                        row.raw_bytes,
                        row.digest,
                        row.payload,
                        row.parts,
                    )
                )
        except EngineError as error:
            yield self._fault(row.position, f"edited: {error.message}")
        except OverflowError:
            yield self._fault(row.position, "edited: a number is out of range")
        else:
            yield from self._compare(row, computed)
            return
        self._before = [row.digest]

    def _compare(self, row: SegmentRow, computed: Sequence[Sequence[bytes]]) -> Iterator[Fault]:
        """Compare the digests of a row's segments, after each that the one before may have had."""
        first_is_right = not self._before
        for number, stored in enumerate(_stored_digests(row)):
            found = [digests[number] for digests in computed]
            self._before = [stored]
            if stored not in found and (number or not first_is_right):
                what = "the digest differs: the row was edited, moved or replaced"
                yield self._fault(row.first + number, what)
                self._before = [*found, stored]

    def finish(self, head: HeadRow | None) -> Iterator[Fault]:
        """Compare what was read with the head."""
        if head is None:
            if self._position:
                yield self._fault(None, "the head's row is missing")
            return
        if head.tenant_id != self._tenant_id:
            yield self._fault(None, f"the head's row belongs to tenant {head.tenant_id}")
        if head.position > self._position:
            first = self._position + 1
            yield self._fault(first, f"missing: the head stands at position {head.position}")
        elif head.position < self._position:
            first = head.position + 1
            text = f"surplus, and all up to {self._position}: the head stands at position {head.position}"
            yield self._fault(first, text)
        elif head.digest != self._digest:
            yield self._fault(head.position, "the head's digest is not that of the last segment")

    def _fault(self, position: int | None, what: str) -> Fault:
        return Fault(self._tenant_id, what, position)


def _stored_digests(row: SegmentRow) -> list[bytes]:
    """Give the digest of each segment of a row, oldest first."""
    if row.parts is None:
        return [row.digest]
    ends = range(segments.PART_BYTES, len(row.parts) + 1, segments.PART_BYTES)
    return [row.parts[end - len(row.digest) : end] for end in ends]


class Derived:
    """Recomputes the windows of one tenant and compares them with its blocks."""

    def __init__(
        self, tenant_id: int, hash_key: bytes, checkpoint: int, revisions: Iterable[StoredRevision]
    ) -> None:
        """Blocks of an active revision hold all up to the checkpoint, or up to what it was built to."""
        self._tenant_id = tenant_id
        self._keys: dict[int, str] = {}
        self._builders: list[tuple[int, int, MeterBuilder]] = []
        self._built: dict[tuple[int, int], list[bytes]] = defaultdict(list)
        self._spoiled = False
        for revision in revisions:
            self._keys[revision.revision_id] = revision.meter.meter_key
            if revision.state == "active":
                spec = spec_of(revision.meter, revision.revision_id, revision.meter.dimensions)
                upto = max(checkpoint, revision.built)
                builder = MeterBuilder(hash_key, tenant_id, spec)
                self._builders.append((revision.revision_id, upto, builder))

    def add(self, row: SegmentRow) -> None:
        """Count a segment; one that cannot be read leaves nothing to compare with."""
        try:
            for _, upto, builder in self._builders:
                if row.first <= upto:
                    builder.add(row.position, row.codec, row.payload, row.raw_bytes, row.parts, upto)
                if builder.row_count > _MAX_BUILD_ROWS:
                    self._keep(builder.take_blocks())
        except (EngineError, OverflowError):
            self._spoiled = True

    def _keep(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self._built[block.meter, block.day].append(block.payload)

    def finish(self) -> set[tuple[int, int]]:
        """End counting; returns the (revision, day) that must have blocks."""
        for _, _, builder in self._builders:
            self._keep(builder.take_blocks())
        return set(self._built)

    def compare(self, revision_id: int, day: int, rows: Sequence[BlockRow]) -> Iterator[Fault]:
        """Check the blocks of a revision and day, and compare them with what was counted."""
        key = self._keys.get(revision_id, "")
        if not key:
            yield self._fault(f"surplus: blocks of revision {revision_id}, which is none", "", day)
            return
        whole = True
        for row in rows:
            for what in self._check_block(row, revision_id, day):
                whole = False
                yield self._fault(what, key, day)
        if not whole or self._spoiled or all(revision_id != known for known, _, _ in self._builders):
            return
        expected = self._merged(revision_id, day, self._built[revision_id, day])
        found = self._merged(revision_id, day, [row.payload for row in rows])
        if expected == found:
            return
        if not expected:
            yield self._fault("surplus: blocks of a day on which it counts nothing", key, day)
        elif not found:
            yield self._fault("missing: its blocks", key, day)
        else:
            yield self._fault("a block is missing, surplus or replaced: the windows differ", key, day)

    def _check_block(self, row: BlockRow, revision_id: int, day: int) -> Iterator[str]:
        if (row.tenant_id, row.revision_id, row.day) != (self._tenant_id, revision_id, day):
            yield "a block's row belongs elsewhere"
            return
        try:
            merged = merge_blocks(row.tenant_id, row.revision_id, row.day, [row.payload])
        except EngineError as error:
            yield f"a block was edited: {error.message}"
            return
        except OverflowError:
            yield "a block was edited: a number is out of range"
            return
        says = (row.subject_min, row.subject_max, row.row_count)
        if not merged or says != (
            merged[0].subject_min,
            merged[-1].subject_max,
            sum(block.row_count for block in merged),
        ):
            yield "a block's row was edited: it says other subjects or another count than the block"

    def _merged(self, revision_id: int, day: int, payloads: Sequence[bytes]) -> list[bytes]:
        return [block.payload for block in merge_blocks(self._tenant_id, revision_id, day, payloads)]

    def _fault(self, what: str, meter_key: str, day: int) -> Fault:
        return Fault(self._tenant_id, what, meter_key=meter_key, day=day)


def verify(
    db: Database,
    tenant_id: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Report:
    """Verify one tenant, or all, as of one moment; `progress` hears (segments read, segments in all).

    A server may run meanwhile, or not.
    """
    started = time.monotonic()
    report = Report()
    with db.engine(snapshot=True) as conn:
        hash_key = segments.hash_key(conn)
        epoch = chain.epoch(conn)
        revisions = meters.all_revisions(conn)
        wanted = chain.tenant_ids(conn) if tenant_id is None else [tenant_id]
        heads = {one: chain.head(conn, one) for one in wanted}
        total = sum(head.position for head in heads.values() if head is not None)
        for one in wanted:
            report.tenants += 1
            own = [revision for revision in revisions if revision.tenant_id == one]
            checkpoint = chain.checkpoint(conn, one)
            links, derived = Chain(one, epoch), Derived(one, hash_key, checkpoint, own)
            for row in chain.segment_rows(conn, one):
                report.faults += links.check(row)
                derived.add(row)
                report.segments += row.position - row.first + 1
                report.rows += 1
                report.events += row.event_count
                progress(report.segments, total)
            head = heads[one]
            report.faults += links.finish(head)
            if checkpoint > (head.position if head else 0):
                report.faults.append(
                    Fault(one, f"the checkpoint stands at position {checkpoint}", checkpoint)
                )
            for revision_id, day in sorted(derived.finish().union(chain.block_days(conn, one))):
                rows = chain.block_rows(conn, one, revision_id, day)
                report.blocks += len(rows)
                report.faults += derived.compare(revision_id, day, rows)
            report.faults += [Fault(one, fault.what) for fault in credit_ledger.faults(conn, one)]
            report.credit_transactions += credit_ledger.transactions(conn, one)
    report.seconds = time.monotonic() - started
    return report

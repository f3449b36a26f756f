"""The Rust core: decoding, identity, windows, counters.

Nothing here touches a socket or a clock, nor a disk but for files of
identities, which are a cache: callers pass bytes and times in and take bytes
and columns out. Every call that does work releases the GIL.
All times are integers: `*_us` microseconds, `*_minute` minutes, both since
the Unix epoch in UTC. `tenant`, `meter`, `customer` and `counter` are small
integers that the database hands out (meter: the revision's id). A quantity is
an int scaled by 10**12.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias, final

QUANTITY_SCALE: Final[int]
"""10**12: a quantity of 1 as an int."""

MAX_EVENTS_PER_REQUEST: Final[int]
"""50,000."""

class EngineError(Exception):
    """The only exception raised here; args are (reason, message).

    Reasons: MALFORMED_REQUEST (not protobuf; message says where),
    LIMIT_EXCEEDED (too many events), BACK_PRESSURE (too many bytes pending),
    INVALID_DEFINITION (meter spec), UNKNOWN_TENANT, UNKNOWN_METER,
    UNKNOWN_COUNTER, STALE_SNAPSHOT (blocks older than memory covers: read
    them again), CORRUPT (a block, payload or chain that does not verify; the
    message says what and where), DAMAGED_RUN (a file of identities that does
    not verify; it is gone, make a new engine), DISK (a file of identities
    cannot be written), POSITION_GAP (replay out of order),
    OUT_OF_RANGE (a sum beyond 26 integer digits), PANIC (a defect here; the
    engine's state is unchanged).
    """

    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...

@final
class MeterSpec:
    """One meter revision, compiled.

    aggregation: COUNT, SUM, MIN, MAX, AVG, UNIQUE_COUNT or LATEST.
    filters: (property, operator, values); operator: EQUALS, NOT_EQUALS, IN or
    EXISTS. Raises INVALID_DEFINITION.
    """

    def __new__(
        cls,
        meter: int,
        key: str,
        event_type: str,
        aggregation: str,
        value_property: str,
        dimensions: Sequence[str],
        filters: Sequence[tuple[str, str, Sequence[str]]],
    ) -> MeterSpec: ...

@final
class Receipt:
    """What became of one request; answer with it once `group` is durable."""

    @property
    def group(self) -> int:
        """Number of the group to wait for; 0: nothing to wait for."""
    @property
    def sequence(self) -> int:
        """StreamUsageRequest.sequence; 0 in a RecordUsageRequest."""
    @property
    def accepted(self) -> int: ...
    @property
    def duplicates(self) -> int: ...
    @property
    def conflicts(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def rejections(self) -> list[tuple[str, int]]:
        """(reason, count) of the rejected events, for metrics."""
    def encode(self, position: int) -> bytes:
        """A RecordUsageResponse, or a StreamUsageResponse if sequence > 0."""

@final
class Segment:
    """One row of the segments table, not yet durable."""

    @property
    def tenant(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def event_count(self) -> int: ...
    @property
    def min_time_us(self) -> int: ...
    @property
    def max_time_us(self) -> int: ...
    @property
    def recorded_us(self) -> int: ...
    @property
    def codec(self) -> int:
        """0: as is; 1: lz4 block; 2: zstd."""
    @property
    def raw_bytes(self) -> int:
        """Length of the payload when decompressed."""
    @property
    def payload(self) -> bytes:
        """A RecordUsageRequest of the accepted events as sent, compressed."""
    @property
    def previous_digest(self) -> bytes: ...
    @property
    def digest(self) -> bytes:
        """SHA-256, 32 bytes; see segment_digest."""

@final
class SealedGroup:
    """The events of one commit: to be made durable whole, then folded."""

    @property
    def number(self) -> int: ...
    @property
    def segments(self) -> list[Segment]: ...
    @property
    def event_count(self) -> int: ...

@final
class Block:
    """Partials of one meter and one UTC day, serialized: a row of blocks."""

    @property
    def tenant(self) -> int: ...
    @property
    def meter(self) -> int: ...
    @property
    def day(self) -> int:
        """Days since the Unix epoch."""
    @property
    def subject_min(self) -> bytes:
        """Least subject (UTF-8 bytes) in the block; subjects are sorted."""
    @property
    def subject_max(self) -> bytes: ...
    @property
    def row_count(self) -> int: ...
    @property
    def payload(self) -> bytes: ...

StoredRow: TypeAlias = tuple[int, int, bytes, int, int, int, bytes, bytes | None]
"""position, codec, payload, raw_bytes, event_count, recorded_us, digest,
parts: the columns of a row of segments. With parts it is a pack: the position
is its last, the numbers are sums, recorded_us is the latest."""

@final
class Pack:
    """Several neighbouring segments in one row; columns as in StoredRow."""

    @property
    def position(self) -> int: ...
    @property
    def codec(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def raw_bytes(self) -> int: ...
    @property
    def event_count(self) -> int: ...
    @property
    def recorded_us(self) -> int: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def parts(self) -> bytes:
        """48 bytes for each segment: event_count (u32), raw_bytes (u32),
        recorded_us (i64), little-endian, and its digest."""

@final
class DraftRun:
    """A file of identities to be placed when all it has is durable."""

@final
class Frozen:
    """Partials taken out of the open table to be written to the database."""

    @property
    def positions(self) -> list[tuple[int, int]]:
        """(tenant, position): the blocks complete each tenant up to here."""
    @property
    def blocks(self) -> list[Block]: ...
    @property
    def row_count(self) -> int: ...

@final
class Query:
    """A page under way."""

    def __init__(
        self,
        engine: Engine,
        tenant: int,
        meter: int,
        checkpoint: int,
        boundaries: Sequence[int],
        group_by: Sequence[str],
        filters: Sequence[tuple[str, Sequence[str]]],
        subjects: Sequence[str],
        customers: Sequence[int],
        page: tuple[tuple[int, Sequence[str]] | None, int],
    ) -> None:
        """Begins to answer a page of what Engine.query would answer, with the
        partials in memory; blocks are added to it. page: only rows after a
        window and its group values (None: from the start), and at most so
        many. Raises as Engine.query does, but for CORRUPT and OUT_OF_RANGE."""

    def add(self, blocks: Sequence[bytes]) -> bool:
        """Merges blocks, complete up to the page's checkpoint. All that are
        given come in the order of the first window that their day has a part
        in, then of their least subject. True once no later one could change
        the page. Raises CORRUPT; INVALID_DEFINITION once it is finished."""
    def finish(self) -> QueryResult:
        """The page, once. Raises OUT_OF_RANGE, and as add does."""

@final
class QueryResult:
    """Columns of equal length, ordered by window, then group values."""

    @property
    def windows(self) -> list[int]:
        """Index into the boundaries: window i is [boundary i, boundary i+1)."""
    @property
    def groups(self) -> list[list[str]]:
        """One list per group_by entry."""
    @property
    def values(self) -> list[int]:
        """Scaled quantities (COUNT and UNIQUE_COUNT, too)."""
    @property
    def event_counts(self) -> list[int]: ...
    @property
    def position(self) -> int:
        """What the result reflects."""

@final
class Answers:
    """Columns of equal length, ordered by question, window, then group values."""

    @property
    def questions(self) -> list[int]:
        """Index into what was asked."""
    @property
    def windows(self) -> list[int]:
        """Index into the form's boundaries."""
    @property
    def groups(self) -> list[list[str]]:
        """One value for each entry of the form's group_by."""
    @property
    def values(self) -> list[int]: ...
    @property
    def event_counts(self) -> list[int]: ...
    @property
    def position(self) -> int:
        """What the answers reflect."""

@final
class StoredEvents:
    """Events found in one row, newest first; columns."""

    @property
    def positions(self) -> list[int]: ...
    @property
    def recorded_us(self) -> list[int]:
        """When their segments were recorded; 0 if the row is no pack: it tells."""
    @property
    def indexes(self) -> list[int]: ...
    @property
    def events(self) -> list[bytes]:
        """Serialized UsageEvent messages."""
    @property
    def times_us(self) -> list[int]:
        """Event time, or received time where the sender gave none."""
    @property
    def digests(self) -> list[str]:
        """Content digests, hex."""
    @property
    def meters(self) -> list[list[int]]:
        """Of the engine's current meters, those that count the event."""

@final
class Engine:
    """All tenants' state: identities, open groups, partials, counters.

    hash_key: 16 secret bytes, stable for the life of the database; identity,
    content and unique-value hashes are keyed with it.
    horizon_past_seconds, horizon_future_seconds: event times accepted
    relative to now. max_pending_bytes: bytes admitted and not yet durable,
    over all tenants; beyond it admit raises BACK_PRESSURE. codec: of new
    segments, as Segment.codec. run_directory: where files of identities are,
    of this engine alone; None: all identities stay in memory. hot_seconds:
    how long they stay there otherwise.
    Thread-safe.
    """

    def __new__(
        cls,
        *,
        hash_key: bytes,
        horizon_past_seconds: int,
        horizon_future_seconds: int,
        max_pending_bytes: int,
        codec: int = 1,
        run_directory: str | None = None,
        hot_seconds: int = 0,
    ) -> Engine: ...

    # Tenants, meters

    def open_tenant(self, tenant: int, position: int, digest: bytes) -> None:
        """Makes a tenant known. With position 0 and 32 zero bytes it is new
        (or will be replayed from the start)."""
    def knows(self, tenant: int) -> bool:
        """True if a tenant was opened."""
    def rewind(self, tenant: int, position: int, digest: bytes) -> None:
        """Puts a known tenant's windows back to `position`, up to which its
        blocks are complete: forgets partials and counters, keeps identities,
        meters and owners. Replay goes on from there. Raises UNKNOWN_TENANT;
        POSITION_GAP while events wait to be folded."""
    def put_meter(self, tenant: int, spec: MeterSpec) -> int:
        """Starts counting for a meter revision; returns its barrier: events
        at positions above it are counted by the engine, those up to it are
        not and have to be built from history. Closes the open group."""
    def drop_meter(self, tenant: int, meter: int) -> None:
        """Stops counting for it; drops its partials and counters' base."""

    # Ingest

    def admit(self, tenant: int, body: bytes, now_us: int) -> Receipt:
        """Judges the events of a RecordUsageRequest or StreamUsageRequest
        and puts the accepted ones into the open group. All or nothing on
        exception. May read files of identities. Raises MALFORMED_REQUEST,
        LIMIT_EXCEEDED, BACK_PRESSURE, UNKNOWN_TENANT, DAMAGED_RUN, PANIC."""
    def try_admit(self, tenant: int, body: bytes, now_us: int) -> Receipt | None:
        """As admit, but reads no file: None if that is needed, and nothing
        has changed then."""
    @property
    def pending_bytes(self) -> int:
        """Bytes admitted and not yet folded."""
    def wait(self, timeout_ms: int) -> bool:
        """Blocks until there is something to seal; False on time-out."""
    def seal(self, now_us: int) -> SealedGroup | None:
        """Takes the oldest pending group, numbers, compresses and chains its
        segments. A sealed group must be folded before the next is sealed;
        sealing again before that returns the same group."""
    def fold(self, group: SealedGroup) -> None:
        """Merges a durable group into partials and counters; its requests may
        be answered after this."""

    # Recovery

    def replay(
        self, tenant: int, rows: Sequence[StoredRow], upto: int, known: int, fold: bool, now_us: int
    ) -> int:
        """Takes back durable rows, neighbours in order of position, reading
        them on several threads; returns how many events they had. Segments
        after `upto`, and those taken back before, are left. fold: merge into
        partials (segments after the checkpoint). Identities of segments after
        `known`, inside the horizon, are remembered. Verifies the digests; raises
        CORRUPT, POSITION_GAP: what came before the fault is taken back then.
        Until the first replay of a tenant, open_tenant's position and digest
        are those before it."""
    def settle_identities(self, tenant: int) -> None:
        """Sorts in the identities that replay left in heaps, on several
        threads; otherwise whoever comes first waits for it."""
    def expire_identities(self, now_us: int) -> int:
        """Forgets identities that no acceptable event can have; returns how
        many."""

    # Windows

    def position(self, tenant: int) -> int:
        """Last folded position: what queries and checks reflect."""
    @property
    def open_rows(self) -> int:
        """Partials in memory."""
    def freeze(self) -> Frozen:
        """Moves all partials of folded groups out of the open table. Queries
        still see them until discard."""
    def discard(self, frozen: Frozen) -> None:
        """Forgets a frozen table: its blocks are in the database."""
    def query(
        self,
        tenant: int,
        meter: int,
        blocks: Sequence[bytes],
        checkpoint: int,
        boundaries: Sequence[int],
        group_by: Sequence[str],
        filters: Sequence[tuple[str, Sequence[str]]],
        subjects: Sequence[str],
        customers: Sequence[int],
    ) -> QueryResult:
        """Merges blocks (complete up to position `checkpoint`) with the
        partials in memory above it, over minutes [boundaries[0],
        boundaries[-1]). boundaries: increasing minutes. group_by: "subject",
        "customer" (gives the customer's int as text, "" for none) or a
        dimension. filters: dimension, allowed values. subjects, customers:
        keep only these; empty: all. A customer owns a subject's usage by the
        spans of set_subject. Ingest waits for the partials in memory only, not
        for the blocks. Raises STALE_SNAPSHOT, OUT_OF_RANGE, CORRUPT,
        UNKNOWN_METER."""

    def survey(
        self,
        tenant: int,
        meter: int,
        blocks: Sequence[bytes],
        checkpoint: int,
        forms: Sequence[tuple[Sequence[int], Sequence[str], Sequence[tuple[str, Sequence[str]]]]],
        asked: Sequence[tuple[int, int]],
    ) -> Answers:
        """Answers many questions at one position, in one pass: each is a
        customer and the index of a form (boundaries, group_by, filters), and
        is answered as query would. group_by: "subject" or a dimension. Raises
        as query does."""

    # Customers, counters

    def set_subject(self, tenant: int, subject: str, spans: Sequence[tuple[int, int, int]]) -> None:
        """Sets who owns a subject: (from_minute, to_minute, customer), sorted
        and not overlapping; empty forgets it. Counters of the customers
        concerned must be put anew by the caller."""
    def spans(self, tenant: int, subject: str) -> list[tuple[int, int, int]]:
        """What set_subject said: (from_minute, to_minute, customer), sorted."""
    def put_counter(
        self,
        tenant: int,
        counter: int,
        meter: int,
        customer: int,
        filters: Sequence[tuple[str, Sequence[str]]],
        boundaries: Sequence[int],
        blocks: Sequence[bytes],
        checkpoint: int,
    ) -> None:
        """Keeps, from now on and at every fold, the partial of a customer's
        filtered usage for each span between boundaries (increasing minutes).
        Starts from blocks and memory as query does; replaces a counter of
        that number. The meter's aggregation is SUM, COUNT, UNIQUE_COUNT,
        LATEST or MAX. Raises STALE_SNAPSHOT, UNKNOWN_METER."""
    def put_counters(
        self,
        tenant: int,
        meter: int,
        counters: Sequence[int],
        customers: Sequence[int],
        filter_of: Sequence[int],
        course_of: Sequence[int],
        filters: Sequence[Sequence[tuple[str, Sequence[str]]]],
        boundaries: Sequence[Sequence[int]],
        blocks: Sequence[bytes],
        checkpoint: int,
    ) -> None:
        """As put_counter for each of many, in one pass over the blocks: their
        numbers, their customers, and which of `filters` and of `boundaries`
        each has. All or nothing."""
    def watch_counters(self, tenant: int, counters: Sequence[int], watched: bool) -> None:
        """Says which counters take_touched is to tell of, also when they are
        put later; it tells of each of them once, for a start."""
    def take_touched(self) -> list[tuple[int, list[int]]]:
        """By tenant, the watched counters that changed or were put since it
        was asked last, each once."""
    def usages(self, tenant: int, counters: Sequence[int], minute: int) -> list[tuple[int, int, int] | None]:
        """For each counter what usage answers, at one moment; None where
        usage would raise."""
    def drop_counter(self, tenant: int, counter: int) -> None: ...
    def usage(self, tenant: int, counter: int, minute: int) -> tuple[int, int, int]:
        """(quantity, from_minute, to_minute) of the span around `minute`; 0
        if nothing was used. Raises UNKNOWN_COUNTER; OUT_OF_RANGE when no span
        covers the minute (put the counter anew) or the sum is too great."""
    def usage_since(self, tenant: int, counter: int, since: int, minute: int) -> tuple[int, int, int, int]:
        """(quantity, from_minute, to_minute, stamp): the span around `minute`,
        and the quantity of all spans from the one around `since` up to it.
        While the stamp stays the same, so do all spans before that one. Raises
        as usage does."""
    def running(self, tenant: int, counter: int, restarts: Sequence[int]) -> tuple[list[int], list[int]]:
        """The counter's boundaries, and for each span the quantity from the
        last of `restarts` (increasing minutes) up to its end. Raises as usage
        does."""

    # Reading back

    def scan(
        self,
        tenant: int,
        position: int,
        codec: int,
        payload: bytes,
        raw_bytes: int,
        parts: bytes | None,
        from_us: int,
        to_us: int,
        event_type: str,
        subject: str,
        event_id: str,
        source: str,
        before: tuple[int, int],
        limit: int,
    ) -> StoredEvents:
        """Finds events of one row: times in [from_us, to_us), the texts
        equal where not empty, (position, index) < before; newest first, at
        most limit."""
    def stats(self) -> dict[str, int]:
        """identities, identity_bytes, groups, open_rows, frozen_rows,
        counters, subjects, pending_bytes, panics."""

@final
class Endings:
    """How answers about a balance end: the fields of an Access after its
    period, encoded, by reason."""

    def __new__(cls, allowed: bytes, over: bytes, reached: bytes) -> Endings: ...

@final
class Checks:
    """Questions that an engine answers by itself, from bytes to bytes.

    A question is an encoded EntitlementCheck of a tenant. Others look up what
    it is about and say so (`learn`), and say when that may have changed
    (`forget`, `set_aside`). At most 65,536 are kept. Thread-safe.
    """

    def __new__(cls, engine: Engine) -> Checks: ...
    def answer(
        self, tenant: int, request: bytes, minute: int
    ) -> tuple[bytes, int, int, int, int, list[tuple[int, int]]] | None:
        """Answers a CheckEntitlementRequest or a BatchCheckEntitlementsRequest
        at one moment: fields 1 of the response, the position, how many are
        ALLOWED, ALLOWED_OVER_SOFT_LIMIT, LIMIT_REACHED, and which questions
        (by number) have to be answered otherwise, and where in the bytes. None
        for another request, and one that asks for a later position. Raises
        UNKNOWN_TENANT."""
    @property
    def version(self) -> int:
        """To be read before what a question is about is looked up: changes
        when anything is forgotten."""
    def learn_metered(
        self,
        version: int,
        tenant: int,
        check: bytes,
        customer: int,
        from_minute: int,
        to_minute: int,
        counter: int,
        allowance: int,
        amount: int | None,
        soft_limit: bool,
        endings: Endings,
    ) -> None:
        """A question about a balance without grants, in minutes [from, to).
        Nothing is learnt if the version is another one by now."""
    def learn_fixed(
        self,
        version: int,
        tenant: int,
        check: bytes,
        customer: int,
        from_minute: int,
        to_minute: int,
        access: bytes,
    ) -> None:
        """A question whose answer, a yes, is always the same encoded Access."""
    def forget(self, tenant: int, customers: Sequence[int]) -> None:
        """Forgets the questions about customers."""
    def forget_all(self) -> None: ...
    def set_aside(self, tenant: int, customer: int, aside: bool) -> None:
        """While a customer is aside, questions about it are not answered."""

@final
class Runs:
    """An engine's files of identities; it was made with a run_directory.

    One thread at a time for a tenant.
    """

    def __new__(cls, engine: Engine) -> Runs: ...
    def stored(self, tenant: int) -> list[tuple[int, int, bytes]]:
        """(up to, position, digest) of a tenant's files, oldest first. With
        those before it, a file has all identities up to a position; all that
        it has was durable at `position`, where the chain had that digest. It
        is to be trusted only if the chain still has it."""
    def load(self, tenant: int, trusted: int, after: int, now_us: int) -> int:
        """Takes the first `trusted` files of a tenant that knows nothing yet,
        and removes the others. Returns the position up to which all is known
        that segments after `after` have; at least `after`."""
    def save(self, tenant: int, least: int) -> DraftRun | None:
        """Writes what no file has, if that is at least so many; None if not.
        Raises DISK."""
    def place(self, draft: DraftRun) -> bool:
        """Makes it a file; False while not all it has is durable. DISK."""
    def give_up(self, draft: DraftRun) -> None:
        """Forgets it; what it has may be saved again."""
    def move_out(self, tenant: int, now_us: int) -> int:
        """Lets memory go of what files have and is older than hot_seconds;
        returns how many. Raises DAMAGED_RUN."""
    def merge(self, tenant: int, now_us: int) -> bool:
        """Makes one file of several; False if there is nothing to merge.
        Raises DISK, DAMAGED_RUN."""
    def expire(self, tenant: int, now_us: int) -> int:
        """Removes files that hold nothing acceptable; returns how many."""

@final
class MeterBuilder:
    """Builds one meter revision's blocks from history."""

    def __new__(cls, hash_key: bytes, tenant: int, spec: MeterSpec) -> MeterBuilder: ...
    def add(
        self,
        position: int,
        codec: int,
        payload: bytes,
        raw_bytes: int,
        parts: bytes | None = None,
        upto: int = ...,
    ) -> None:
        """Counts the segments of a row that are not after `upto`."""
    @property
    def skipped_count(self) -> int:
        """Events skipped because their value is not a number."""
    @property
    def skipped_events(self) -> list[str]:
        """The first 10 of them, as "source/id"."""
    @property
    def row_count(self) -> int:
        """Partials held: take blocks when this grows large."""
    def take_blocks(self) -> list[Block]:
        """What was built since the last call."""

def merge_blocks(tenant: int, meter: int, day: int, payloads: Sequence[bytes]) -> list[Block]:
    """Merges blocks of one meter and day; splits the result by subject where
    it grows past about 64 KiB."""

def segment_digest(
    previous_digest: bytes,
    tenant: int,
    position: int,
    event_count: int,
    recorded_us: int,
    raw_bytes: int,
    raw: bytes,
) -> bytes:
    """SHA-256 over previous_digest, then tenant (u32), position (u64),
    event_count (u32), recorded_us (i64), raw_bytes (u32), all little-endian,
    then the payload, decompressed."""

def verify_segment(
    previous_digest: bytes,
    tenant: int,
    position: int,
    event_count: int,
    min_time_us: int,
    max_time_us: int,
    recorded_us: int,
    codec: int,
    raw_bytes: int,
    digest: bytes,
    payload: bytes,
    parts: bytes | None,
) -> list[bytes]:
    """Reads a stored row again: its checksum, length, events, their count
    and least and greatest times; of a pack, that it says what its parts say.
    Returns the digests that the chain should have for its segments, each after
    the one stored before it. Raises CORRUPT."""

def pack_segments(previous_digest: bytes, tenant: int, rows: Sequence[StoredRow]) -> Pack:
    """Makes a pack of neighbours, segments or packs, oldest first.
    previous_digest is that before the first. Raises CORRUPT unless each of
    them verifies."""

def message_sequence(body: bytes) -> int:
    """StreamUsageRequest.sequence, without looking into the events; 0 if unset.
    Raises MALFORMED_REQUEST."""

def compress(codec: int, raw: bytes) -> bytes:
    """Makes a segment's payload; unless as is, it ends with its CRC-32."""

def decompress(codec: int, payload: bytes, raw_bytes: int) -> bytes: ...
def parse_quantity(text: str) -> int | None:
    """The scaled quantity of a decimal text; None if it is none. At most 26
    integer and 12 fractional digits; sign, digits, one point; no exponent,
    no spaces."""

def panic_for_test() -> None:
    """Panics inside; raises EngineError PANIC. Only to prove that."""

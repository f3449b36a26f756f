"""The engine, driven through every order of its steps, gives the oracle's outcomes and numbers."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model import Event, Meter
from tests.native.bench import FUTURE_SECONDS, PAST_SECONDS, Bench, Counter

pytestmark = pytest.mark.timeout(300)

START_US = 1_770_000_123_456_789
MINUTE_US = 60_000_000
_BASE = START_US // MINUTE_US

# Times relative to the start: far, near, and on both sides of every edge.
_OFFSETS_US = (
    *(-PAST_SECONDS * 1_000_000 + shift for shift in (-1, 0, 1, 3 * MINUTE_US)),
    *(FUTURE_SECONDS * 1_000_000 + shift for shift in (-1, 0, 1)),
    *((_BASE - back) * MINUTE_US - START_US + shift for back in (0, 1, 2, 60, 1440) for shift in (-1, 0)),
    *(-day * 86_400_000_000 for day in (0, 1, 2, 9, 34)),
)
_TEXTS = st.sampled_from(["a", "b", "c", "d", "ä", "", "x" * 256, "x" * 257])
_GOOD = st.sampled_from(["a", "b", "c", "d", "e", "f", "ö"])
_VALUES = st.one_of(
    st.sampled_from(["1", "2", "-3", "0.5", "-0.000000000001", "0", "+7", "1.", ".25"]),
    st.sampled_from(
        ["", "x", "NaN", "1e3", "0.0000000000001", "9" * 26, "9" * 27, "-" + "9" * 26 + ".5", "٣"]
    ),
    st.integers(-(10**6), 10**6).map(str),
)
_PROPERTIES = st.fixed_dictionaries(
    {}, optional={"v": _VALUES, "w": st.sampled_from(["1", "2"]), "model": _GOOD, "zone": _GOOD, "": _GOOD}
)
_TIMES = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(_OFFSETS_US), st.integers(0, 999)).map(
        lambda pair: ((START_US + pair[0]) // 1_000_000, (START_US + pair[0]) % 1_000_000 * 1000 + pair[1])
    ),
    st.sampled_from([(0, 10**9), (0, -1), (-62_135_596_801, 0), (253_402_300_800, 0), (2**62, 0)]),
)
_EVENTS = st.builds(
    Event,
    id=st.one_of(st.integers(0, 40).map(lambda n: f"id-{n}"), _TEXTS),
    source=st.one_of(st.sampled_from(["s1", "s2"]), _TEXTS),
    type=st.sampled_from(["t", "t", "t", "u"]),
    subject=st.one_of(st.sampled_from(["alice", "bob", "carol"]), _TEXTS),
    time=_TIMES,
    properties=_PROPERTIES,
)
_FILTERS = st.lists(
    st.sampled_from(
        [
            ("model", "EQUALS", ("a",)),
            ("model", "NOT_EQUALS", ("b",)),
            ("model", "IN", ("a", "c", "d")),
            ("zone", "EXISTS", ()),
            ("", "EXISTS", ()),
        ]
    ),
    max_size=2,
).map(tuple)


@st.composite
def _meters(draw: st.DrawFn) -> Meter:
    aggregation = draw(st.sampled_from(["COUNT", "SUM", "MIN", "MAX", "AVG", "UNIQUE_COUNT", "LATEST"]))
    value = "" if aggregation == "COUNT" else draw(st.sampled_from(["v", "v", "w"]))
    dimensions = draw(st.sampled_from([(), ("model",), ("zone", "model")]))
    filters = [one for one in draw(_FILTERS) if one[0]]
    return Meter("m", draw(st.sampled_from(["t", "t", "u"])), aggregation, value, dimensions, tuple(filters))


class EngineMachine(RuleBasedStateMachine):
    """Steps of clients, the commit and checkpoint workers, operators and bad luck."""

    @initialize(seed=st.integers(0, 2**32 - 1), meters=st.lists(_meters(), max_size=3))
    def begin(self, seed: int, meters: list[Meter]) -> None:
        self.bench = Bench(START_US, random.Random(seed))  # noqa: S311 - to be repeated
        self.sent: list[Event] = []
        for meter in meters:
            self.bench.put_meter(meter)

    @rule(events=st.lists(_EVENTS, min_size=1, max_size=12), sequence=st.sampled_from([0, 0, 5, 2**62]))
    def new_events(self, events: list[Event], sequence: int) -> None:
        self.sent += events
        self.bench.admit(events, sequence)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def events_again(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=8))
        self.bench.admit(some)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), change=_EVENTS)
    def events_of_known_identity(self, data: st.DataObject, change: Event) -> None:
        known = data.draw(st.sampled_from(self.sent))
        self.bench.admit([known, replace(change, id=known.id, source=known.source), known])

    @rule()
    def commit(self) -> None:
        self.bench.commit()

    @rule()
    def checkpoint(self) -> None:
        self.bench.freeze()
        self.bench.write_checkpoint()

    @rule()
    def freeze(self) -> None:
        self.bench.freeze()

    @precondition(lambda self: self.bench.unwritten)
    @rule()
    def write_checkpoint(self) -> None:
        self.bench.write_checkpoint()

    @rule()
    def merge_blocks(self) -> None:
        self.bench.merge()

    @precondition(lambda self: len(self.bench.meters) < 6)
    @rule(meter=_meters())
    def put_meter(self, meter: Meter) -> None:
        self.bench.put_meter(meter)

    @precondition(lambda self: len(self.bench.meters) > 3)
    @rule(data=st.data())
    def drop_meter(self, data: st.DataObject) -> None:
        self.bench.drop_meter(data.draw(st.sampled_from(sorted(self.bench.meters))))

    @rule(subject=st.sampled_from(["alice", "bob", "a"]), cut=st.sampled_from([-1440, -1, 0, 1]))
    def move_subject(self, subject: str, cut: int) -> None:
        self.bench.own(subject, [(-(2**31), _BASE + cut, "1"), (_BASE + cut, 2**31 - 1, "2")])

    @rule(subject=st.sampled_from(["alice", "bob"]), first=st.sampled_from([-2000, -1]))
    def own_for_a_while(self, subject: str, first: int) -> None:
        self.bench.own(subject, [(_BASE + first, _BASE + 1, "3")])

    @rule(
        data=st.data(),
        number=st.integers(1, 4),
        customer=st.sampled_from("123"),
        edges=st.sampled_from([(-51_000, 0, 100), (-1, 0, 1, 2, 61), (-2000, -60)]),
    )
    def put_counter(self, data: st.DataObject, number: int, customer: str, edges: tuple[int, ...]) -> None:
        kinds = ("SUM", "COUNT", "UNIQUE_COUNT", "LATEST", "MAX")
        meters = [key for key, one in self.bench.meters.items() if one.meter.aggregation in kinds]
        if not meters:
            return
        meter = data.draw(st.sampled_from(meters))
        named = self.bench.meters[meter].meter.dimensions
        filters = [(name, ["a", "b", ""]) for name in named[: data.draw(st.integers(0, 1))]]
        self.bench.put_counter(number, Counter(meter, customer, filters, [_BASE + shift for shift in edges]))
        self.bench.check_counters()

    @rule(minutes=st.sampled_from([0, 1, 5, 61]))
    def time_goes_by(self, minutes: int) -> None:
        self.bench.now_us += minutes * MINUTE_US + 1

    @rule(sealed_is_durable=st.booleans())
    def crash(self, *, sealed_is_durable: bool) -> None:
        self.bench.crash(sealed_is_durable=sealed_is_durable)

    @precondition(lambda self: self.bench.meters)
    @rule(data=st.data())
    def query(self, data: st.DataObject) -> None:
        bench = self.bench
        number = data.draw(st.sampled_from(sorted(bench.meters)))
        names = ["subject", "customer", *bench.meters[number].meter.dimensions]
        wanted: dict[str, Any] = {
            "group_by": data.draw(st.lists(st.sampled_from(names), unique=True)),
            "subjects": data.draw(st.lists(st.sampled_from(["alice", "bob", "nobody"]), max_size=2)),
            "customers": data.draw(st.lists(st.sampled_from(["1", "2", "9"]), max_size=2)),
        }
        dimensions = bench.meters[number].meter.dimensions
        if dimensions:
            filters = st.tuples(st.sampled_from(dimensions), st.lists(_GOOD | st.just(""), min_size=1))
            wanted["filters"] = data.draw(st.lists(filters, max_size=1))
        spans = [[-51_000, 100], [-51_000, -1440, -60, -1, 0, 1, 2, 10], [-2, -1, 0], [-1440, 0]]
        edges = [_BASE + shift for shift in data.draw(st.sampled_from(spans))]
        bench.query(number, edges, **wanted)

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        everything = [_BASE - 60_000, _BASE - 1440, _BASE, _BASE + 10_000]
        for number, one in self.bench.meters.items():
            self.bench.query(number, everything, group_by=["subject", *one.meter.dimensions])


EngineMachine.TestCase.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestEngineFollowsModel = EngineMachine.TestCase

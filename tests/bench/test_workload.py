"""The generator's own sums, against the messages that it makes."""

from collections import Counter

import pytest

from ammeter.v1 import usage_pb2
from bench.kinds import ApiGateway, Kind, LlmGateway
from bench.workload import bodies, from_source, generate


@pytest.mark.parametrize("kind", [LlmGateway(), ApiGateway()], ids=lambda kind: kind.name)
def test_what_a_workload_must_come_to_is_what_its_messages_say(kind: Kind) -> None:
    work = generate(kind, 5000, seed=7)
    expected = work.expected
    assert expected.sent == expected.accepted + expected.duplicates + expected.rejected == 5000
    assert min(expected.duplicates, expected.rejected) > 0
    events = {}
    for body in bodies(work.events, 1000):
        for event in usage_pb2.RecordUsageRequest.FromString(from_source(body, 7)).events:
            assert event.source.endswith("7")
            events[event.id] = event
    sums: Counter[tuple[str, ...]] = Counter()
    for event in events.values():
        if event.properties[kind.values[0]] == "many":
            continue
        values = [event.properties[name] for name in kind.dimensions]
        for meter, value in kind.meters.items():
            sums[meter, event.subject, *values] += int(event.properties[value]) if value else 1
    assert sums == expected.sums

"""Decides from the clients' journals and the server's answers whether every event counted as it was said to.

It knows nothing else. Acknowledged: counted once. Refused: not counted. Never
answered: counted once or not at all, and then the stored events tell which.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash.journal import Sent, read


class Stored(NamedTuple):
    """One event as ListEvents shows it."""

    id: str
    subject: str
    minute: int
    value: int | None
    position: int


class Window(NamedTuple):
    """One row of QueryUsage, by subject and minute."""

    subject: str
    minute: int
    value: int
    events: int


@dataclass
class _History:
    """All that the clients know about one id."""

    sent: list[Sent] = field(default_factory=list)
    unknown: list[Sent] = field(default_factory=list)
    outcomes: list[tuple[str, Sent, int]] = field(default_factory=list)


def problems(journals: Iterable[Path], stored: Sequence[Stored], windows: Sequence[Window]) -> list[str]:
    """Every way in which the answers contradict each other; empty: none."""
    found: list[str] = []
    histories = _histories(journals, found)
    copies: dict[str, list[Stored]] = defaultdict(list)
    for one in stored:
        copies[one.id].append(one)
    found += [f"{event_id}: stored, and nobody sent it" for event_id in copies.keys() - histories.keys()]
    for event_id, history in histories.items():
        said = (*_said_wrongly(history), *_stored_wrongly(history, copies.get(event_id, [])))
        found += [f"{event_id}: {what}" for what in said]
    return found + _differing_windows(stored, windows)


def summary(journals: Iterable[Path]) -> Mapping[str, int]:
    """How many outcomes of each kind, failures included."""
    counts: Counter[str] = Counter()
    for path in journals:
        for line in read(path):
            counts.update(line.get("answer", ()))
            counts.update(["FAILURE"] if "failure" in line else [])
    return counts


def _histories(journals: Iterable[Path], found: list[str]) -> dict[str, _History]:
    histories: dict[str, _History] = defaultdict(_History)
    for path in journals:
        open_calls: dict[int, list[Sent]] = {}
        for line in read(path):
            if "intent" in line:
                events = open_calls[line["call"]] = [Sent(*event) for event in line["intent"]]
                for event in events:
                    histories[event.id].sent.append(event)
            elif line["call"] not in open_calls:
                found.append(f"{path.name}: call {line['call']} was answered, and nothing was asked")
            elif "answer" in line:
                found += _answered(histories, path.name, line, open_calls.pop(line["call"]))
        # What failed is as unknown as what was never answered.
        for events in open_calls.values():
            for event in events:
                histories[event.id].unknown.append(event)
    return histories


def _answered(
    histories: dict[str, _History], client: str, line: dict[str, Any], events: list[Sent]
) -> list[str]:
    outcomes = line["answer"]
    for event, outcome in zip(events, outcomes, strict=False):
        histories[event.id].outcomes.append((outcome, event, line["position"]))
    if len(outcomes) == len(events):
        return []
    return [f"{client}: call {line['call']} had {len(events)} events, {len(outcomes)} outcomes"]


def _said_wrongly(history: _History) -> Iterable[str]:
    """What no honest server answers, whatever it stored."""
    said = [outcome for outcome, *_ in history.outcomes]
    if said.count("ACCEPTED") > 1:
        yield f"accepted {said.count('ACCEPTED')} times"
    if "DUPLICATE" in said and "ACCEPTED" not in said and not history.unknown:
        yield "called a duplicate, and nothing was sent before"
    if "CONFLICT" in said and len(set(history.sent)) == 1:
        yield "called a conflict, and only one content was ever sent"


def _stored_wrongly(history: _History, copies: Sequence[Stored]) -> Iterable[str]:
    if len(copies) > 1:
        yield f"stored {len(copies)} times"
    if any(outcome != "REJECTED" for outcome, *_ in history.outcomes):
        if not copies:
            yield "acknowledged, and not stored"
    elif copies and not history.unknown:
        yield "refused, and stored"
    for copy in copies:
        content = Sent(*copy[:4])
        if content not in history.sent:
            yield f"stored as {content}, sent as {history.sent}"
        for outcome, event, position in history.outcomes:
            if outcome in ("ACCEPTED", "DUPLICATE") and event != content:
                yield f"acknowledged as {event}, stored as {content}"
            if outcome in ("ACCEPTED", "DUPLICATE") and position < copy.position:
                yield f"acknowledged at position {position}, stored at {copy.position}"


def _differing_windows(stored: Iterable[Stored], windows: Iterable[Window]) -> list[str]:
    """What is counted is what is stored, once."""
    sums: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for event in stored:
        if event.value is not None:
            cell = sums[event.subject, event.minute]
            cell[0] += event.value
            cell[1] += 1
    counted = {(w.subject, w.minute): [w.value, w.events] for w in windows}
    return [
        f"{key[0]} at {key[1]}: counted {counted.get(key)}, stored {sums.get(key)}"
        for key in sorted(sums.keys() | counted.keys())
        if sums.get(key) != counted.get(key)
    ]

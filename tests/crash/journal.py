"""What a client meant to do and what it was told, in a file: written before it sends, and when it hears.

One JSON object a line:

    {"call": 3, "intent": [[id, subject, minute, value], ...]}   before the call is sent
    {"call": 3, "answer": ["ACCEPTED", ...], "position": 17}     an outcome for each event
    {"call": 3, "failure": "UNAVAILABLE"}                        nothing is known
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Sent(NamedTuple):
    """One event as a client sent it; `value` is None where it sent no number."""

    id: str
    subject: str
    minute: int
    value: int | None


class Journal:
    """Appends lines; each is with the kernel before the call goes out: even a dead client has no secrets."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self._call = 0

    def intent(self, events: Sequence[Sent]) -> int:
        """Write what is about to be sent; returns the call's number."""
        self._call += 1
        self._write({"call": self._call, "intent": events})
        return self._call

    def answer(self, call: int, outcomes: Sequence[str], position: int) -> None:
        self._write({"call": call, "answer": outcomes, "position": position})

    def failure(self, call: int, code: str) -> None:
        self._write({"call": call, "failure": code})

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a journal; one torn by the client's own death is left out."""
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)

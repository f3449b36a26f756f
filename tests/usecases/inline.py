"""Runs operations in the thread that watches them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from ammeter.usecases.billing import Billing
from ammeter.usecases.operations import Made, claim, run_operation


class Inline:
    """What the server's worker does, without a thread."""

    def __init__(self, run: Billing, tenant_id: int, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._tenant_id = tenant_id
        self._clock = clock

    def wake(self) -> None:
        """There is nobody to wake."""

    @contextmanager
    def watch(self, operation_id: str) -> Iterator[Iterator[Made]]:
        yield self._work(operation_id)

    def _work(self, operation_id: str) -> Iterator[Made]:
        operation = claim(self._run, self._tenant_id, self._clock())
        assert operation is not None
        assert operation.operation_id == operation_id
        yield from run_operation(self._run, self._tenant_id, operation, self._clock)

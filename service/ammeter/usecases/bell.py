"""Wakes those who wait for something of a tenant."""

import asyncio
from collections.abc import Iterable


class Bell:
    """Rung from any thread, heard on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start with nobody listening."""
        self._loop = loop
        self._events: dict[int, asyncio.Event] = {}

    def ring(self, tenant_ids: Iterable[int]) -> None:
        """Wake who waits for one of these tenants."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring, list(tenant_ids))

    def _ring(self, tenant_ids: list[int]) -> None:
        for tenant_id in tenant_ids:
            event = self._events.pop(tenant_id, None)
            if event is not None:
                event.set()

    def next(self, tenant_id: int) -> asyncio.Event:
        """Give what is set when it rings next: take it, look, then wait."""
        return self._events.setdefault(tenant_id, asyncio.Event())

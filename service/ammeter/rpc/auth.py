"""Who is calling: the credential in the metadata, or the default tenant on loopback."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from ammeter.domain.key import Caller
from ammeter.errors import PermissionDeniedError, UnauthenticatedError

# A revoked key is refused everywhere within this time.
CACHE_SECONDS = 5.0
_CACHE_ENTRIES = 10_000
_BEARER = "bearer "


class Authenticator:
    """Finds the caller of an RPC; remembers keys for CACHE_SECONDS."""

    def __init__(self, verify: Callable[[str, datetime], Caller], anonymous: Caller | None) -> None:
        """Take the slow check of a key, and who a caller without one is (None: refused)."""
        self._verify = verify
        self._anonymous = anonymous
        self._cache: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    async def caller(self, metadata: Iterable[tuple[str, str | bytes]] | None, scope: str) -> Caller:
        """Authenticate and require a scope.

        Raises UnauthenticatedError or PermissionDeniedError.
        """
        credential = _credential(metadata)
        if credential is not None:
            caller = await self._by_key(credential)
        elif self._anonymous is not None:
            caller = self._anonymous
        else:
            message = "an API key is needed: send metadata 'authorization: Bearer <key>'"
            raise UnauthenticatedError(message)
        if scope not in caller.scopes:
            message = f"this key lacks the scope {scope!r}: use one that has it, or make one"
            raise PermissionDeniedError(message)
        return caller

    async def _by_key(self, text: str) -> Caller:
        now = time.monotonic()
        cached = self._cache.get(text)
        if cached is not None and cached[0] > now:
            return cached[1]
        self._cache.pop(text, None)
        caller = await asyncio.to_thread(self._verify, text, datetime.now(UTC))
        self._cache[text] = (now + CACHE_SECONDS, caller)
        while len(self._cache) > _CACHE_ENTRIES:
            self._cache.popitem(last=False)
        return caller


def _credential(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    for name, value in metadata or ():
        if name == "authorization":
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else text
    return None

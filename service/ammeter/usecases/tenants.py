"""Which tenants the engine knows."""

import threading
from datetime import datetime

from ammeter.domain.key import Caller
from ammeter.store.db import Database
from ammeter.usecases.engine import Engine
from ammeter.usecases.keys import verify_key
from ammeter.usecases.recover import open_new_tenants


class Tenants:
    """Verifies keys, and makes a tenant known to the engine when its first key shows up."""

    def __init__(self, db: Database, engine: Engine, pepper: bytes, known: set[int]) -> None:
        """Begin with the tenants that are known."""
        self._db = db
        self._engine = engine
        self._pepper = pepper
        self._known = known
        self._lock = threading.Lock()

    def verify(self, text: str, now: datetime) -> Caller:
        """Tell who holds a key; raises UnauthenticatedError."""
        caller = verify_key(self._db, self._pepper, text, now)
        with self._lock:
            if caller.tenant_id not in self._known:
                self._known = open_new_tenants(self._db, self._engine, self._known)
        return caller

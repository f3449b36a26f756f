"""API keys: their form, their scopes, and who is calling."""

import zlib
from dataclasses import dataclass
from datetime import datetime

INGEST = "ingest"
CHECK = "check"
READ = "read"
ADMIN = "admin"
SCOPES = frozenset({INGEST, CHECK, READ, ADMIN})

_PREFIX = "ammeter"
_PARTS = 4


@dataclass(frozen=True)
class Caller:
    """Who is calling, as the credential says."""

    tenant_id: int
    tenant_key: str
    key_id: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class Key:
    """A key without its secret."""

    key_id: str
    name: str
    scopes: frozenset[str]
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None

    def usable(self, now: datetime) -> bool:
        """Whether the key opens anything at `now`."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):08x}"


def format_key(key_id: str, secret: str) -> str:
    """Compose what a client sends: ammeter_<id>_<secret>_<checksum>.

    The prefix and the checksum let scanners find a leaked key, and let the
    server refuse a mistyped one without asking the database.
    """
    return f"{_PREFIX}_{key_id}_{secret}_{_checksum(key_id, secret)}"


def parse_key(text: str) -> tuple[str, str] | None:
    """Take a key apart into (key_id, secret); None if it is not one."""
    parts = text.split("_")
    if len(parts) != _PARTS or parts[0] != _PREFIX or parts[3] != _checksum(parts[1], parts[2]):
        return None
    return parts[1], parts[2]

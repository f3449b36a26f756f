"""Make, verify and revoke API keys; make tenants."""

import hmac
import re
import secrets
from datetime import datetime

from ammeter.domain.key import ADMIN, READ, SCOPES, Caller, Key, format_key, parse_key
from ammeter.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    Violation,
    invalid,
)
from ammeter.store import keys as store
from ammeter.store.db import Database, Tx

DEFAULT_TENANT = "default"

_SECRET_BYTES = 32
_KEY_ID_BYTES = 6
_MAX_NAME = 256
_TENANT_FORM = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def _hmac(pepper: bytes, secret: str) -> bytes:
    # Full-entropy secrets need no slow hash; the pepper makes a stolen table useless.
    return hmac.digest(pepper, secret.encode(), "sha256")


def _make(name: str, scopes: frozenset[str], now: datetime, expire_time: datetime | None) -> tuple[Key, str]:
    key = Key(secrets.token_hex(_KEY_ID_BYTES), name, scopes, now, expire_time)
    return key, secrets.token_hex(_SECRET_BYTES)


def create_key(
    tx: Tx, pepper: bytes, name: str, scopes: frozenset[str], expire_time: datetime | None, now: datetime
) -> tuple[Key, str]:
    """Make a key for the transaction's tenant; returns it and what a client sends."""
    violations = []
    if len(name) > _MAX_NAME or "\0" in name:
        violations.append(Violation("name", f"must be at most {_MAX_NAME} characters, without NUL"))
    if not scopes or not scopes <= SCOPES:
        violations.append(Violation("scopes", f"must be one or more of {', '.join(sorted(SCOPES))}"))
    if expire_time is not None and expire_time <= now:
        violations.append(Violation("expire_time", "must lie ahead"))
    if violations:
        raise InvalidInputError(violations)
    key, secret = _make(name, scopes, now, expire_time)
    store.insert(tx.conn, tx.tenant_id, key, _hmac(pepper, secret))
    return key, format_key(key.key_id, secret)


def revoke_key(tx: Tx, key_id: str, now: datetime) -> Key:
    """Revoke a key; a revoked one stays as it is."""
    key = store.revoke(tx, key_id, now)
    if key is None:
        raise NotFoundError("key", key_id)
    return key


def verify_key(db: Database, pepper: bytes, text: str, now: datetime) -> Caller:
    """Tell who holds a key; raises UnauthenticatedError."""
    message = (
        "the API key is unknown, expired or revoked: send 'authorization: Bearer <key>' with a valid one"
    )
    parts = parse_key(text)
    if parts is None:
        raise UnauthenticatedError(message)
    with db.engine() as conn:
        found = store.find(conn, parts[0])
    known = found is not None and hmac.compare_digest(found.secret_hmac, _hmac(pepper, parts[1]))
    if found is None or not known or not found.key.usable(now):
        raise UnauthenticatedError(message)
    return Caller(found.tenant_id, found.tenant_key, found.key.key_id, found.key.scopes)


def create_tenant(db: Database, pepper: bytes, tenant_key: str, now: datetime) -> tuple[int, str]:
    """Make a tenant and its first key (admin, read); returns (tenant_id, what a client sends)."""
    if not _TENANT_FORM.fullmatch(tenant_key):
        raise invalid("tenant_key", "must be 1-64 of a-z, 0-9, '_', '-', starting with a letter")
    with db.engine() as conn:
        tenant_id = store.insert_tenant(conn, tenant_key)
        if tenant_id is None:
            message = f"tenant {tenant_key!r} is there already: choose another name"
            raise AlreadyExistsError(message)
        key, secret = _make("first key", frozenset({ADMIN, READ}), now, None)
        store.insert(conn, tenant_id, key, _hmac(pepper, secret))
    return tenant_id, format_key(key.key_id, secret)


def default_tenant(db: Database) -> Caller:
    """Give the tenant that needs no key on loopback, making it on first use."""
    with db.engine() as conn:
        store.insert_tenant(conn, DEFAULT_TENANT)
        tenant_id = store.tenant_ids(conn)[DEFAULT_TENANT]
    return Caller(tenant_id, DEFAULT_TENANT, "", SCOPES)

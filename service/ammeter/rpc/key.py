"""KeyService: API keys of the caller's tenant."""

from datetime import UTC, datetime

from ammeter.domain.key import ADMIN, Key
from ammeter.errors import invalid
from ammeter.rpc.convert import from_timestamp, to_timestamp
from ammeter.rpc.method import Method
from ammeter.rpc.paging import encode_token, fingerprint, page_size, read_token
from ammeter.store import keys as store
from ammeter.store.db import Tx
from ammeter.usecases.keys import create_key, revoke_key
from ammeter.v1 import key_pb2

_SCOPES = {
    key_pb2.SCOPE_INGEST: "ingest",
    key_pb2.SCOPE_CHECK: "check",
    key_pb2.SCOPE_READ: "read",
    key_pb2.SCOPE_ADMIN: "admin",
}


def _place(create_time: str, key_id: str) -> tuple[datetime, str]:
    return datetime.fromisoformat(create_time).astimezone(UTC), str(key_id)


def to_message(key: Key) -> key_pb2.Key:
    """Write a key as a message."""
    return key_pb2.Key(
        key_id=key.key_id,
        name=key.name,
        scopes=[number for number, word in _SCOPES.items() if word in key.scopes],
        create_time=to_timestamp(key.create_time),
        expire_time=to_timestamp(key.expire_time),
        revoke_time=to_timestamp(key.revoke_time),
    )


class KeyRpc:
    """Messages to and from the keys."""

    service = "ammeter.v1.KeyService"

    def __init__(self, pepper: bytes) -> None:
        """Take the pepper that secrets are stored with."""
        self._pepper = pepper

    def methods(self) -> list[Method]:
        """Every method of the service. All need ADMIN: a list of keys is of use to nobody else."""
        return [
            Method.write("CreateKey", ADMIN, self.create),
            Method.read("ListKeys", ADMIN, self.list),
            Method.write("RevokeKey", ADMIN, self.revoke),
        ]

    def create(self, tx: Tx, request: key_pb2.CreateKeyRequest, now: datetime) -> key_pb2.CreateKeyResponse:
        """Make a key; its secret is in the answer only."""
        for index, number in enumerate(request.scopes):
            if number not in _SCOPES:
                raise invalid(f"scopes[{index}]", "is no Scope")
        scopes = frozenset(_SCOPES[number] for number in request.scopes)
        expire_time = from_timestamp(
            request.expire_time, "expire_time", present=request.HasField("expire_time")
        )
        key, secret = create_key(tx, self._pepper, request.name, scopes, expire_time, now)
        return key_pb2.CreateKeyResponse(key=to_message(key), secret=secret)

    def list(self, tx: Tx, request: key_pb2.ListKeysRequest, _now: datetime) -> key_pb2.ListKeysResponse:
        """List keys, newest first."""
        mark = fingerprint(request)
        size = page_size(request.page_size)
        before = read_token(request.page_token, mark, _place)
        found = store.page(tx, before, size + 1)
        response = key_pb2.ListKeysResponse(keys=[to_message(key) for key in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            response.next_page_token = encode_token(mark, (last.create_time.isoformat(), last.key_id))
        return response

    def revoke(self, tx: Tx, request: key_pb2.RevokeKeyRequest, now: datetime) -> key_pb2.RevokeKeyResponse:
        """Revoke a key."""
        return key_pb2.RevokeKeyResponse(key=to_message(revoke_key(tx, request.key_id, now)))

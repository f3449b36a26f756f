"""Who may call what: nothing is reachable without a credential but what is listed here."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ammeter.config import ConfigurationError, load
from ammeter.domain.key import format_key
from ammeter.rpc.auth import CACHE_SECONDS
from ammeter.rpc.bind import Binder
from ammeter.rpc.key import KeyRpc
from ammeter.rpc.method import READ, Method
from ammeter.v1 import key_pb2
from tests.rpc.shop import PEPPER, SCOPES, Silence, eventually, key_with, new_tenant, stamp, stubs_with
from tests.rpc.wire import BY_NAME, RPCS, Rpc, call, failure, refused
from tests.serving import ServerProcess, Stubs

# What a scope opens, as key.proto says it.
SCOPE_OF = {
    "RecordUsage": "ingest",
    "StreamUsage": "ingest",
    "CheckEntitlement": "check",
    "BatchCheckEntitlements": "check",
    "StreamChecks": "check",
    "WatchAccess": "check",
    "ListAccess": "check",
    "Reserve": "check",
    "ExtendReservation": "check",
    "SettleReservation": "check",
    "ReleaseReservation": "check",
    "RenewLease": "check",
    "ListKeys": "admin",
}


def scope_of(rpc: Rpc) -> str:
    reads = rpc.name.startswith(("Get", "List", "Query", "Preview", "Explain", "Render", "Watch"))
    return SCOPE_OF.get(rpc.name, "read" if reads else "admin")


@dataclass(frozen=True)
class Locked:
    """A server that serves nobody without a key, and keys of one tenant for it, by scope: (id, secret)."""

    server: ServerProcess
    url: str
    admin: Stubs
    keys: dict[str, tuple[str, str]]
    channel: grpc.Channel


@pytest.fixture(scope="module")
def locked(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    url = new_database()
    settings = {"allow_anonymous_loopback": "false", "key_pepper": PEPPER}
    with ServerProcess(url, tmp_path_factory.mktemp("locked"), **settings) as server:
        _, secret = new_tenant(url, "locked")
        admin = stubs_with(server, secret)
        keys = {scope: key_with(admin, scope) for scope in SCOPES}
        yield Locked(server, url, admin, keys, server.channel())


@pytest.mark.parametrize("rpc", RPCS, ids=str)
def test_no_method_answers_without_a_key(rpc: Rpc, locked: Locked) -> None:
    failed = refused(locked.channel, rpc)
    assert failed
    assert (failed.code, failed.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert "authorization: Bearer" in failed.message


def test_a_stream_that_sends_nothing_needs_a_key_too(locked: Locked) -> None:
    streaming = Stubs(locked.channel).usage.StreamUsage
    with pytest.raises(grpc.RpcError) as caught:
        list(streaming(iter(()), timeout=5))
    assert failure(caught.value).code == "UNAUTHENTICATED"


@pytest.mark.parametrize("rpc", RPCS, ids=str)
def test_a_method_answers_its_own_scope_and_no_other(rpc: Rpc, locked: Locked) -> None:
    for scope, (_, secret) in locked.keys.items():
        # A body that no method can read: what is refused for that has passed the door.
        failed = refused(locked.channel, rpc, b"\xff", secret=secret)
        assert failed
        if scope == scope_of(rpc):
            assert failed.reason == "MALFORMED_REQUEST"
        else:
            assert (failed.code, failed.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")
            assert repr(scope_of(rpc)) in failed.message


@pytest.fixture(scope="module")
def worthless(locked: Locked) -> dict[str, str]:
    """Credentials that open nothing, by what is wrong with them."""
    every = tuple(SCOPES)
    _, expired = key_with(locked.admin, *every)
    revoked_id, revoked = key_with(locked.admin, *every)
    _, good = key_with(locked.admin, *every)
    head, key_id, secret, checksum = good.split("_")
    with psycopg.connect(locked.url, autocommit=True) as conn:
        conn.execute(
            "UPDATE api_keys SET expire_time = now() - interval '1 second' WHERE key_id = %s",
            [expired.split("_")[1]],
        )
        conn.execute("UPDATE api_keys SET revoke_time = now() WHERE key_id = %s", [revoked_id])
    return {
        "unknown id": format_key("0" * 12, secret),
        "other secret": format_key(key_id, "0" * 64),
        "wrong checksum": f"{head}_{key_id}_{secret}_{'0' * len(checksum)}",
        "cut short": good[:-1],
        "longer": good + "0",
        "upper case": good.upper(),
        "without its secret": f"{head}_{key_id}",
        "expired": expired,
        "revoked": revoked,
        "not a key": "hunter2",
        "only spaces": "   ",
        "very long": "a" * 4000,
        "SQL": "ammeter_' OR true --_x_y",
    }


@pytest.mark.parametrize("rpc", RPCS, ids=str)
def test_a_worthless_credential_opens_nothing(rpc: Rpc, locked: Locked, worthless: dict[str, str]) -> None:
    for what, secret in worthless.items():
        failed = refused(locked.channel, rpc, secret=secret)
        assert failed, what
        assert (failed.code, failed.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED"), what
        assert secret.strip() == "" or secret not in failed.message, what


def test_other_ways_to_write_the_header_open_nothing_by_accident(locked: Locked) -> None:
    _, secret = locked.keys["read"]
    rpc = BY_NAME["ListMeters"]
    for name, value in (
        ("authorization", ""),
        ("authorization", "Bearer"),
        ("authorization", f"Basic {secret}"),
        ("x-authorization", f"Bearer {secret}"),
        ("x-api-key", secret),
        ("ammeter-tenant", "default"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(locked.channel, rpc, metadata=[(name, value)])
        assert failure(caught.value).code == "UNAUTHENTICATED", (name, value)
    assert call(locked.channel, rpc, metadata=[("authorization", f"bearer {secret}")])


def test_what_needs_no_key_is_health_and_reflection_and_nothing_else(locked: Locked) -> None:
    assert locked.server.is_serving(locked.channel)
    stub: Any = reflection_pb2_grpc.ServerReflectionStub  # made at run time
    reflection = stub(locked.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([request]))
    services = {service.name for service in answer.list_services_response.service}
    assert services == {rpc.service for rpc in RPCS} | {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for path in ("/ammeter.v1.UsageService/Nothing", "/grpc.channelz.v1.Channelz/GetServers", "/x/y"):
        with pytest.raises(grpc.RpcError) as caught:
            _any_path(locked.channel, path)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def _any_path(channel: grpc.Channel, path: str) -> None:
    unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path, bytes, bytes)
    unary(b"", timeout=5)


def test_a_revoked_key_is_refused_once_it_is_forgotten_and_its_idle_stream_ends(locked: Locked) -> None:
    key_id, secret = key_with(locked.admin, "read", "ingest")
    read = BY_NAME["ListMeters"]
    assert call(locked.channel, read, secret=secret)
    waiting = Silence()
    stream = stubs_with(locked.server, secret).usage.StreamUsage(iter(waiting), timeout=50)
    locked.admin.keys.RevokeKey(key_pb2.RevokeKeyRequest(key_id=key_id))
    assert CACHE_SECONDS <= 5
    eventually(lambda: refused(locked.channel, read, secret=secret) is not None, 40)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    waiting.close()
    assert failure(caught.value).code == "UNAUTHENTICATED"


def test_on_loopback_the_default_tenant_needs_no_key_but_a_wrong_one_is_still_wrong(
    server: ServerProcess,
) -> None:
    channel = server.channel()
    assert call(channel, BY_NAME["ListMeters"]) == [b""]
    failed = refused(channel, BY_NAME["ListMeters"], secret="hunter2")  # noqa: S106 - it opens nothing
    assert failed
    assert failed.code == "UNAUTHENTICATED"


@pytest.mark.parametrize("listen", ["0.0.0.0:7117", "[::]:7117", "192.0.2.1:7117", "example.test:7117"])
def test_off_loopback_nothing_starts_without_tls_or_a_word_that_says_so(
    listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_environment(monkeypatch)
    with pytest.raises(ConfigurationError, match="AMMETER_TLS_CERTIFICATE"):
        load(listen=listen)
    settings = load(listen=listen, allow_insecure=True)
    assert not settings.is_development, "and a caller without a key is nobody there"
    with pytest.raises(ConfigurationError, match="AMMETER_KEY_PEPPER"):
        load(listen=listen, allow_insecure=True, database_url="postgresql://h/d")


@pytest.mark.parametrize("host", ["127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example"])
def test_a_name_that_looks_like_loopback_is_not(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_environment(monkeypatch)
    with pytest.raises(ConfigurationError, match="is not loopback"):
        load(listen=f"{host}:7117")


def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMMETER_LISTEN", "")
    monkeypatch.setenv("AMMETER_ALLOW_INSECURE", "")


def test_a_method_without_a_handler_does_not_register() -> None:
    # Neither one that the API declares and nobody bound, nor one bound that it does not declare.
    whole = KeyRpc(b"pepper")
    binder = Binder(None, None, None, lambda: None, lambda: None)  # type: ignore[arg-type]  # nothing is called
    assert len(binder.bind([whole])) == 3
    for methods in (whole.methods()[1:], [*whole.methods(), Method.read("Other", READ, _nothing)]):
        with pytest.raises(LookupError, match="declared and bound methods differ"):
            binder.bind([SimpleNamespace(service=whole.service, methods=lambda methods=methods: methods)])


def _nothing(*_: object) -> Message:
    return BY_NAME["ListKeys"].response()


def test_secrets_are_in_no_dump_of_the_database_and_in_no_log(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    settings = {"allow_anonymous_loopback": "false", "key_pepper": PEPPER, "log_level": "debug"}
    with ServerProcess(url, tmp_path, **settings) as server:
        _, first = new_tenant(url, "dumped")
        admin = stubs_with(server, first)
        secrets = [first, *(key_with(admin, scope)[1] for scope in SCOPES)]
        channel = server.channel()
        for secret in secrets:
            for rpc in RPCS:
                with contextlib.suppress(grpc.RpcError):
                    call(channel, rpc, b"\xff", secret=secret)
        # A defect of ours, with the key at hand, writes a traceback.
        _break_key_lookup(url)
        failed = refused(channel, BY_NAME["ListKeys"], secret=format_key("a" * 12, secrets[0].split("_")[2]))
        assert failed
        assert failed.code == "INTERNAL"
        server.stop()
        log = server.log.read_text()
    assert '"level": "error"' in log
    assert "api_keys" in log, "the traceback is there"
    dump = _dump(url)
    assert "dumped" in dump
    for secret in secrets:
        core = secret.split("_")[2]
        for place in (dump, log):
            assert core not in place
            assert core.encode().hex() not in place
    assert PEPPER not in dump
    assert PEPPER not in log


def _break_key_lookup(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("ALTER TABLE api_keys RENAME COLUMN secret_hmac TO gone")


def _dump(url: str) -> str:
    lines = []
    with psycopg.connect(url) as conn:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            with conn.cursor().copy(f"COPY {table} TO STDOUT".encode()) as rows:
                lines += [bytes(row).decode() for row in rows]
    return "".join(lines)


def test_a_key_that_expires_stops_working(locked: Locked) -> None:
    soon = stamp(datetime.now(UTC) + timedelta(seconds=2))
    made = locked.admin.keys.CreateKey(
        key_pb2.CreateKeyRequest(name="short", scopes=[key_pb2.SCOPE_READ], expire_time=soon)
    )
    rpc = BY_NAME["ListMeters"]
    assert call(locked.channel, rpc, secret=made.secret)
    eventually(lambda: refused(locked.channel, rpc, secret=made.secret) is not None, 40)

"""KeyService over the wire."""

import re
from datetime import UTC, datetime, timedelta

from ammeter.v1 import key_pb2 as pb
from tests.rpc.shop import stamp
from tests.rpc.wire import refusal
from tests.serving import Stubs

FORM = re.compile(r"ammeter_[0-9a-f]{12}_[0-9a-f]{64}_[0-9a-f]{8}")


def create(stubs: Stubs, name: str = "k") -> pb.CreateKeyResponse:
    return stubs.keys.CreateKey(pb.CreateKeyRequest(name=name, scopes=[pb.SCOPE_READ, pb.SCOPE_INGEST]))


def test_a_key_shows_its_secret_once(stubs: Stubs) -> None:
    expire = stamp(datetime.now(UTC) + timedelta(days=1))
    made = stubs.keys.CreateKey(pb.CreateKeyRequest(name="né", scopes=[pb.SCOPE_CHECK], expire_time=expire))
    assert FORM.fullmatch(made.secret)
    assert made.secret.split("_")[1] == made.key.key_id
    assert (made.key.name, list(made.key.scopes), made.key.expire_time) == ("né", [pb.SCOPE_CHECK], expire)
    assert not made.key.HasField("revoke_time")
    listed = stubs.keys.ListKeys(pb.ListKeysRequest()).keys
    assert made.key in listed
    assert made.secret.split("_")[2] not in str(listed)


def test_two_keys_never_share_anything(stubs: Stubs) -> None:
    secrets = {part for _ in range(50) for part in create(stubs).secret.split("_")[1:3]}
    assert len(secrets) == 100


def test_keys_are_listed_newest_first_in_pages(stubs: Stubs) -> None:
    made = [create(stubs).key.key_id for _ in range(7)]
    found: list[str] = []
    request = pb.ListKeysRequest(page_size=3)
    while len(found) < 7:
        answer = stubs.keys.ListKeys(request)
        found += [key.key_id for key in answer.keys]
        create(stubs)  # newer ones do not shift the pages
        request.page_token = answer.next_page_token
    assert found[:7] == made[::-1]


def test_revoking_twice_answers_the_first_revocation(stubs: Stubs) -> None:
    key_id = create(stubs).key.key_id
    first = stubs.keys.RevokeKey(pb.RevokeKeyRequest(key_id=key_id))
    assert first.key.HasField("revoke_time")
    assert stubs.keys.RevokeKey(pb.RevokeKeyRequest(key_id=key_id)) == first


def test_every_fault_of_a_key_is_named(stubs: Stubs) -> None:
    past = stamp(datetime.now(UTC) - timedelta(seconds=5))
    failed = refusal(stubs.keys.CreateKey, pb.CreateKeyRequest(name="x" * 257, expire_time=past))
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert failed.fields.keys() == {"name", "scopes", "expire_time"}
    failed = refusal(stubs.keys.CreateKey, pb.CreateKeyRequest(scopes=[1, 99]))  # type: ignore[list-item]
    assert list(failed.fields) == ["scopes[1]"]
    failed = refusal(stubs.keys.CreateKey, pb.CreateKeyRequest(scopes=[pb.SCOPE_UNSPECIFIED]))
    assert list(failed.fields) == ["scopes[0]"]


def test_revoking_what_is_not_there_is_not_found(stubs: Stubs) -> None:
    failed = refusal(stubs.keys.RevokeKey, pb.RevokeKeyRequest(key_id="0" * 12))
    assert (failed.code, failed.reason) == ("NOT_FOUND", "NOT_FOUND")
    assert "list what there is" in failed.message

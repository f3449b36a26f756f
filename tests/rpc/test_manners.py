"""How the server starts, waits, listens, reports and leaves."""

import json
import shutil
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import prometheus_client
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ammeter import metrics
from ammeter.v1 import usage_pb2 as pb
from tests.rpc.shop import Shop, Silence, eventually, unique
from tests.rpc.wire import BY_NAME, RPCS, call, failure, refusal, refused
from tests.serving import ServerProcess, Stubs

SERVICES = sorted({rpc.service for rpc in RPCS})
# A stop that waited for this would not be seen to end.
_LONG = 600
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def event(subject: str = "u") -> pb.UsageEvent:
    return pb.UsageEvent(id=unique("e"), source="s", type="manners", subject=subject)


def message(sequence: int) -> pb.StreamUsageRequest:
    return pb.StreamUsageRequest(events=[event()], sequence=sequence)


def health(channel: grpc.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub  # made at run time
    return int(stub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


# Being found


def test_reflection_describes_every_method(server: ServerProcess) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub  # made at run time
    asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in SERVICES]
    described = set()
    for answer in stub(server.channel()).ServerReflectionInfo(iter(asked)):
        for body in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(body)
            described |= {
                f"/{file.package}.{one.name}/{method.name}" for one in file.service for method in one.method
            }
    assert described >= {rpc.path for rpc in RPCS}


def test_health_speaks_for_each_service_and_for_no_other(server: ServerProcess) -> None:
    channel = server.channel()
    for service in ("", *SERVICES):
        assert health(channel, service) == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health(channel, "ammeter.v1.Nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# Waiting its turn


def test_a_second_server_stands_by_says_so_and_takes_over(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    with ServerProcess(url, tmp_path) as first, _launched(url, tmp_path) as second:
        channel = second.channel()
        eventually(lambda: "standing by" in second.log.read_text(), 20)
        for service in ("", *SERVICES):
            assert health(channel, service) == NOT_SERVING
        for rpc in RPCS:
            failed = refused(channel, rpc)
            assert failed, str(rpc)
            assert (failed.code, failed.reason) == ("UNAVAILABLE", "NOT_SERVING")
            assert failed.retry_seconds
            assert "stands by" in failed.message
        silent = Silence()
        with pytest.raises(grpc.RpcError) as caught:
            list(Stubs(channel).usage.StreamUsage(iter(silent), timeout=10))
        silent.close()
        assert failure(caught.value).reason == "NOT_SERVING", "also of a stream that sends nothing"
        acked = first.stubs().usage.RecordUsage(pb.RecordUsageRequest(events=[event("kept")]))
        first.kill()
        second.wait_until_serving()
        stubs = second.stubs()
        (stored,) = stubs.usage.ListEvents(pb.ListEventsRequest(subject="kept")).events
        assert stored.position == acked.position
        assert stubs.usage.RecordUsage(pb.RecordUsageRequest(events=[stored.event])).rejected_count == 1
        assert second.stop() == 0


class _launched(ServerProcess):  # noqa: N801 - read as a function
    """A server that is not waited for."""

    def __enter__(self) -> Self:
        self.launch()
        return self


def test_a_server_that_stands_by_leaves_at_once_when_asked(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    with ServerProcess(url, tmp_path), _launched(url, tmp_path, drain_seconds=_LONG) as second:
        eventually(lambda: "standing by" in second.log.read_text(), 20)
        assert second.stop() == 0


def test_a_port_in_use_is_refused_and_not_shared(
    server: ServerProcess, new_database: Callable[[], str], tmp_path: Path
) -> None:
    with _launched(new_database(), tmp_path, listen=server.address) as second:
        assert second.process.wait(20) != 0
        assert "AMMETER_LISTEN" in second.log.read_text()
    assert health(server.channel()) == SERVING


# Leaving


def test_sigterm_lets_a_stream_have_its_answers_and_nothing_is_lost_or_counted_twice(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    with ServerProcess(new_database(), tmp_path) as server:
        shop = Shop(server.stubs(), "leave")
        key = shop.meter("COUNT", event_type="manners")
        sent = [message(number) for number in range(1, 5001)]
        read: list[int] = []
        under_way = threading.Event()
        ended: list[grpc.RpcError] = []

        def run() -> None:
            try:
                for answer in server.stubs().usage.StreamUsage(iter(sent), timeout=30):
                    read.append(answer.sequence)
                    under_way.set()
            except grpc.RpcError as error:
                ended.append(error)

        client = threading.Thread(target=run)
        client.start()
        under_way.wait(10)
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        client.join()
        assert read == list(range(1, len(read) + 1))
        if ended:
            told = failure(ended[0])
            assert (told.code, told.reason) == ("UNAVAILABLE", "NOT_SERVING")
            assert told.retry_seconds
            assert "send again" in told.message
        server.start()
        stubs = server.stubs()
        again = list(stubs.usage.StreamUsage(iter(sent[len(read) :]), timeout=30))
        assert sum(one.accepted_count + one.duplicate_count for one in again) == len(sent) - len(read)
        assert Shop(stubs, "leave").total(key) == str(len(sent))


def test_sigterm_ends_an_idle_stream_and_the_process(new_database: Callable[[], str], tmp_path: Path) -> None:
    with ServerProcess(new_database(), tmp_path, drain_seconds=_LONG) as server:
        idle = Silence(message(1))
        answers = server.stubs().usage.StreamUsage(iter(idle), timeout=50)
        assert next(answers).sequence == 1
        server.signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        idle.close()
        assert failure(caught.value).reason == "NOT_SERVING"
        assert server.process.wait(30) == 0
        assert '"event": "stopped"' in server.log.read_text()


# Limits


def test_metadata_beyond_the_limit_is_refused_and_the_connection_goes_on(server: ServerProcess) -> None:
    channel = server.channel()
    rpc = BY_NAME["ListMeters"]
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, rpc, metadata=[("x-large", "x" * 20_000)])
    assert caught.value.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    assert call(channel, rpc, metadata=[("x-small", "x" * 4_000)])


def test_more_streams_than_a_connection_may_have_wait_their_turn(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    with ServerProcess(new_database(), tmp_path, max_streams=3) as server:
        stubs = server.stubs()
        idle = [Silence(message(1)) for _ in range(3)]
        streams = [stubs.usage.StreamUsage(iter(one), timeout=30) for one in idle]
        assert [next(stream).sequence for stream in streams] == [1, 1, 1]
        with pytest.raises(grpc.RpcError) as caught:
            stubs.usage.RecordUsage(pb.RecordUsageRequest(), timeout=1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert Stubs(server.channel()).usage.RecordUsage(pb.RecordUsageRequest(), timeout=5) is not None
        for one in idle:
            one.close()
        assert all(list(stream) == [] for stream in streams)
        assert stubs.usage.RecordUsage(pb.RecordUsageRequest(), timeout=5) is not None


def test_junk_on_the_port_harms_nobody(server: ServerProcess) -> None:
    host, _, port = server.address.rpartition(":")
    for junk in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + b"\0" * 200,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
    ):
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            raw.sendall(junk)
    assert call(server.channel(), BY_NAME["ListMeters"])


# Reporting


@pytest.fixture(scope="module")
def page(server: ServerProcess, stubs: Stubs) -> str:
    """The metrics page after some of everything."""
    stubs.usage.RecordUsage(pb.RecordUsageRequest(events=[event(), pb.UsageEvent(id="x")]))
    refusal(stubs.meters.GetMeter, BY_NAME["GetMeter"].request(meter_key="nothing"))
    call(server.channel(), BY_NAME["CheckEntitlement"], _check())
    eventually(lambda: "ammeter_engine{" in _page(server), 20)  # told every few seconds
    return _page(server)


def _page(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def _check() -> bytes:
    return (
        BY_NAME["CheckEntitlement"]
        .request(check={"customer_key": "nobody", "feature_key": "nothing"})
        .SerializeToString()
    )


def test_every_metric_is_on_the_page(page: str) -> None:
    kinds = (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)
    names = [one._name for one in vars(metrics).values() if isinstance(one, kinds)]
    assert len(names) >= 14
    for name in names:
        assert f"# HELP {name}" in page, name
    assert "ammeter_serving 1.0" in page


def test_the_page_counts_what_happened(page: str) -> None:
    for line in (
        'ammeter_rpcs_total{code="OK",method="/ammeter.v1.UsageService/RecordUsage"}',
        'ammeter_rpcs_total{code="NOT_FOUND",method="/ammeter.v1.MeterService/GetMeter"}',
        'ammeter_events_total{outcome="accepted"}',
        'ammeter_rejected_events_total{reason="EVENT_FIELD_MISSING"}',
        'ammeter_checks_total{reason="CUSTOMER_UNKNOWN"}',
        'ammeter_rpc_seconds_count{method="/ammeter.v1.UsageService/RecordUsage"}',
        "ammeter_committed_events_total",
        'ammeter_engine{what="panics"}',
    ):
        assert any(one.startswith(line) for one in page.splitlines()), line


def test_every_line_of_the_log_is_json_with_a_time_and_a_level(server: ServerProcess, page: str) -> None:
    assert page
    lines = server.log.read_text().splitlines()
    assert len(lines) >= 3
    for line in lines:
        entry = json.loads(line)
        assert {"event", "level", "timestamp"} <= entry.keys(), line
    assert {"listening", "serving", "recovered"} <= {json.loads(line)["event"] for line in lines}


def test_a_password_in_the_database_url_is_in_no_log(tmp_path: Path) -> None:
    password = "correct-horse"  # noqa: S105 - nobody's
    with _launched(f"postgresql://ammeter:{password}@127.0.0.1:9/none", tmp_path) as server:
        assert server.process.wait(30) != 0
        log = server.log.read_text()
    assert log
    assert password not in log


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(chain)]
    subprocess.run(
        [openssl, "req", "-x509", "-days", "1", *curve, *names, *files], check=True, capture_output=True
    )
    return chain, key


@pytest.fixture
def secured(
    certificate: tuple[Path, Path], new_database: Callable[[], str], tmp_path: Path
) -> Iterator[ServerProcess]:
    chain, key = certificate
    with _launched(new_database(), tmp_path, tls_certificate=chain, tls_key=key) as server:
        yield server


def test_tls_serves_who_trusts_the_certificate_and_nobody_else(
    secured: ServerProcess, certificate: tuple[Path, Path]
) -> None:
    trusted = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    with grpc.secure_channel(secured.address, trusted) as channel:
        eventually(lambda: _serves(channel), 30)
        assert call(channel, BY_NAME["ListMeters"]) == [b""]
    with grpc.secure_channel(secured.address, grpc.ssl_channel_credentials()) as stranger:
        assert not _serves(stranger)
    with grpc.insecure_channel(secured.address) as plain:
        assert not _serves(plain)
    assert secured.stop() == 0


def _serves(channel: grpc.Channel) -> bool:
    try:
        return health(channel) == SERVING
    except grpc.RpcError:
        return False

"""`ammeter serve` as a child process that tests may stop, kill, freeze and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ammeter.v1.access_pb2_grpc import AccessServiceStub
from ammeter.v1.add_on_pb2_grpc import AddOnServiceStub
from ammeter.v1.billing_pb2_grpc import BillingServiceStub
from ammeter.v1.catalog_pb2_grpc import CatalogServiceStub
from ammeter.v1.coupon_pb2_grpc import CouponServiceStub
from ammeter.v1.credit_note_pb2_grpc import CreditNoteServiceStub
from ammeter.v1.credit_pb2_grpc import CreditServiceStub
from ammeter.v1.customer_pb2_grpc import CustomerServiceStub
from ammeter.v1.entitlement_pb2_grpc import EntitlementServiceStub
from ammeter.v1.invoice_pb2_grpc import InvoiceServiceStub
from ammeter.v1.key_pb2_grpc import KeyServiceStub
from ammeter.v1.meter_pb2_grpc import MeterServiceStub
from ammeter.v1.notification_pb2_grpc import NotificationServiceStub
from ammeter.v1.operation_pb2_grpc import OperationServiceStub
from ammeter.v1.price_list_pb2_grpc import PriceListServiceStub
from ammeter.v1.price_override_pb2_grpc import PriceOverrideServiceStub
from ammeter.v1.reservation_pb2_grpc import ReservationServiceStub
from ammeter.v1.subscription_pb2_grpc import SubscriptionServiceStub
from ammeter.v1.usage_pb2_grpc import UsageServiceStub

_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
# No retries behind a test's back; quick to find a server that came back.
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


class Stubs:
    """A stub for each service, over one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.access = AccessServiceStub(channel)
        self.add_ons = AddOnServiceStub(channel)
        self.billing = BillingServiceStub(channel)
        self.catalog = CatalogServiceStub(channel)
        self.coupons = CouponServiceStub(channel)
        self.credits = CreditServiceStub(channel)
        self.credit_notes = CreditNoteServiceStub(channel)
        self.customers = CustomerServiceStub(channel)
        self.entitlements = EntitlementServiceStub(channel)
        self.invoices = InvoiceServiceStub(channel)
        self.keys = KeyServiceStub(channel)
        self.meters = MeterServiceStub(channel)
        self.price_overrides = PriceOverrideServiceStub(channel)
        self.notifications = NotificationServiceStub(channel)
        self.price_lists = PriceListServiceStub(channel)
        self.reservations = ReservationServiceStub(channel)
        self.operations = OperationServiceStub(channel)
        self.subscriptions = SubscriptionServiceStub(channel)
        self.usage = UsageServiceStub(channel)


class ServerProcess:
    """A server over one database, on one port, whatever becomes of its process.

    `settings` are fields of ammeter.config.Settings; the log of all its lives
    is `directory`/server.log.
    """

    def __init__(self, database_url: str, directory: Path, **settings: object) -> None:
        self.database_url = database_url
        self.address = f"127.0.0.1:{_free_port()}"
        self.metrics_address = f"127.0.0.1:{_free_port()}"
        self.log = directory / f"server-{self.address.rpartition(':')[2]}.log"
        given = {
            "database_url": database_url,
            "listen": self.address,
            "metrics_listen": self.metrics_address,
            "data_dir": directory,
            "identity_dir": directory / "identities",
            **settings,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AMMETER_")}
        self._environment = clean | {f"AMMETER_{name.upper()}": str(value) for name, value in given.items()}
        self._child: subprocess.Popen[bytes] | None = None
        self._channels: list[grpc.Channel] = []

    def change(self, **settings: object) -> None:
        """Set fields of Settings for lives to come; None takes one back to its default."""
        for name, value in settings.items():
            self._environment.pop(f"AMMETER_{name.upper()}", None)
            if value is not None:
                self._environment[f"AMMETER_{name.upper()}"] = str(value)

    def preload(self, library: Path, **environment: object) -> None:
        """Put a library before the system's for lives to come, and say more in the environment."""
        self._environment["LD_PRELOAD"] = str(library)
        self._environment.update({name: str(value) for name, value in environment.items()})

    def use(self, program: Path) -> None:
        """Run another version for lives to come: `program` is the folder that its package is in."""
        self._environment["PYTHONPATH"] = str(program)

    def launch(self) -> None:
        """Start a process, and do not wait for it."""
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "ammeter.cli", "serve"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environment,
            )

    def start(self) -> None:
        self.launch()
        self.wait_until_serving()

    def wait_until_serving(self, seconds: float = _START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        with self.open_channel(self.address) as channel:
            while not self.is_serving(channel):
                assert self.process.poll() is None, f"the server ended at once: {self.last_words()}"
                assert time.monotonic() < deadline, f"the server does not serve: {self.last_words()}"
                time.sleep(_POLL_SECONDS)

    def is_serving(self, channel: grpc.Channel) -> bool:
        """Ask the health service once."""
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # made at run time
            answer = check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._child is not None, "not started"
        return self._child

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.kill()
        self.process.wait()

    def hands(self) -> list[int]:
        """The processes that make its invoices now."""
        return hands_of(self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, seconds: float = 30.0) -> int:
        """Send SIGTERM and wait; returns the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def restart(self) -> None:
        """Kill, if it lives, and start again on the same port."""
        if self.process.poll() is None:
            self.kill()
        self.start()

    def channel(self) -> grpc.Channel:
        """Open a channel, closed with the server at the latest."""
        channel = self.open_channel(self.address)
        self._channels.append(channel)
        return channel

    @staticmethod
    def open_channel(address: str) -> grpc.Channel:
        """A channel without retries that soon finds a server that came back."""
        return grpc.insecure_channel(address, options=_OPTIONS)

    def stubs(self) -> Stubs:
        return Stubs(self.channel())

    def last_words(self) -> str:
        return f"{self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()


def hands_of(pid: int) -> list[int]:
    """Find the processes that make invoices for another one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and "ammeter.workers.hand" in (process / "cmdline").read_text():
                found.append(int(process.name))
    return sorted(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

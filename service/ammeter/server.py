"""The composition root: puts the parts together, starts and stops them.

A process waits for the writer's lock, recovers, serves; when it can no longer
be the writer it stops serving and begins again from the database.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import grpc
import prometheus_client
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from ammeter import faults, metrics
from ammeter.config import Settings, load_pepper
from ammeter.errors import InternalError
from ammeter.logs import configure_logs
from ammeter.port import credentials_of, server_options
from ammeter.rpc.access import AccessRpc
from ammeter.rpc.add_on import AddOnRpc
from ammeter.rpc.auth import Authenticator
from ammeter.rpc.billing import BillingRpc
from ammeter.rpc.bind import Binder, Router, Service
from ammeter.rpc.catalog import CatalogRpc
from ammeter.rpc.coupon import CouponRpc
from ammeter.rpc.credit import CreditRpc
from ammeter.rpc.credit_note import CreditNoteRpc
from ammeter.rpc.customer import CustomerRpc
from ammeter.rpc.entitlement import EntitlementRpc
from ammeter.rpc.invoice import InvoiceRpc
from ammeter.rpc.key import KeyRpc
from ammeter.rpc.meter import MeterRpc
from ammeter.rpc.notification import NotificationRpc
from ammeter.rpc.operation import OperationRpc
from ammeter.rpc.price_list import PriceListRpc
from ammeter.rpc.price_override import PriceOverrideRpc
from ammeter.rpc.reservation import ReservationRpc
from ammeter.rpc.streams import Streams
from ammeter.rpc.subscription import SubscriptionRpc
from ammeter.rpc.usage import UsageRpc
from ammeter.store import segments
from ammeter.store.db import Database
from ammeter.store.embedded import EmbeddedPostgres
from ammeter.store.migrate import migrate
from ammeter.store.run_files import RunDirectory, claim
from ammeter.usecases.bell import Bell
from ammeter.usecases.billing import Billing
from ammeter.usecases.desk import Desk
from ammeter.usecases.follow import EngineOptions, Follower
from ammeter.usecases.herald import Herald
from ammeter.usecases.keys import default_tenant
from ammeter.usecases.live import Live
from ammeter.usecases.measure import engine_survey, measuring
from ammeter.usecases.meters import MeterShop
from ammeter.usecases.pulse import Pulse
from ammeter.usecases.record import Intake
from ammeter.usecases.recover import Recovered, open_new_tenants, recover
from ammeter.usecases.reserve import Reserving
from ammeter.usecases.tenants import Tenants
from ammeter.usecases.watch import Watch
from ammeter.workers.billing import BillingWorker
from ammeter.workers.checkpoint import CheckpointWorker
from ammeter.workers.chores import BuildWorker, ChoreWorker, Keep
from ammeter.workers.commit import CommitWorker
from ammeter.workers.crew import crew_of
from ammeter.workers.identities import IdentityWorker
from ammeter.workers.notify import NotifyWorker
from ammeter.workers.operations import OperationWorker
from ammeter.workers.pack import PackWorker
from ammeter.workers.pulse import PulseWorker
from ammeter.workers.standby import StandbyWorker

_CODECS = {"none": 0, "lz4": 1, "zstd": 2}
_SECONDS_PER_DAY = 86_400
_RPC_THREADS = 16
_LOCK_POLL_SECONDS = 0.1
# After streams were ended: clients read why before the connection closes.
_LINGER_SECONDS = 0.25

_log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns when everything is closed.

    Raises AmmeterError, or the embedded database's error, when it cannot start.
    """
    configure_logs(settings.log_level, settings.log_format)
    if settings.faults:
        faults.arm(settings.faults)
    asyncio.run(_Server(settings).run())


def _engine_options(settings: Settings, runs: RunDirectory | None) -> EngineOptions:
    return EngineOptions(
        horizon_past_seconds=settings.event_horizon_days * _SECONDS_PER_DAY,
        horizon_future_seconds=settings.event_future_seconds,
        max_pending_bytes=settings.max_pending_bytes,
        codec=_CODECS[settings.codec],
        run_directory=None if runs is None else runs.path,
        hot_seconds=settings.identity_hot_days * _SECONDS_PER_DAY,
    )


class _Writer:
    """Everything that lives as long as this process is the writer."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        pool: ThreadPoolExecutor,
        pepper: bytes,
        recovered: Recovered,
        raw: segments.RawConnection,
        epoch: int,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        """Wire the parts; called on the event loop's thread."""
        engine = recovered.engine
        self._db = db
        self._builds = recovered.builds
        self.live = Live(db, engine)
        loop = asyncio.get_running_loop()
        work = threading.Event()

        def wake() -> None:
            if not work.is_set():
                work.set()

        self.intake = Intake(engine, loop, on_fatal, wake)
        self.desk = Desk(db, self.live, self.intake, loop, wake)
        self.streams = Streams()
        self._build = BuildWorker(db, engine, recovered.hash_key, self.live.refresh_meter)
        self._commit = CommitWorker(db, engine, self.intake, self.desk, work, raw, epoch, on_fatal)
        self._checkpoint = CheckpointWorker(
            db, engine, epoch, settings.checkpoint_interval_seconds, settings.checkpoint_rows, on_fatal
        )
        wait_seconds = settings.min_position_wait_ms / 1000
        self._identities = IdentityWorker(db, recovered, on_fatal)
        self._pack = PackWorker(db, epoch, settings.pack_interval_seconds)
        self.usage = UsageRpc(db, engine, self.intake, settings.stream_window_bytes, wait_seconds)
        shop = MeterShop(engine, self._build.enqueue, recovered.revision_ids)

        def recheck() -> None:
            self.live.roll(datetime.now(UTC))
            shop.catch_up(db)

        keep = Keep(settings.request_id_days, settings.event_horizon_days, settings.operation_days)
        self._chores = ChoreWorker(db, engine, recheck, keep)
        pulse = Pulse()
        self._pulse = PulseWorker(db, epoch, pulse, on_fatal)
        horizon = timedelta(days=settings.event_horizon_days)
        survey = engine_survey(db, engine)
        run = Billing(db, measuring(survey), horizon)
        self._crew = crew_of(settings, run, survey)
        run = self._crew.put_to(run)
        self._operations = OperationWorker(run, pulse.silent)
        herald = Herald(db, self.live, epoch)
        self.live.listeners.append(herald.customer_changed)
        bell = Bell(loop)
        watch = Watch(self.live, loop, epoch)
        self.live.listeners.append(watch.customer_changed)
        self.live.book.listeners.append(watch.held_changed)
        self._notify = NotifyWorker(engine, herald, watch, bell.ring, pulse.silent)
        self._billing = BillingWorker(run, settings.billing_interval_seconds, pulse.silent, bell.ring)
        services: list[Service] = [
            self.usage,
            MeterRpc(shop),
            CustomerRpc(self.live),
            CatalogRpc(self.live),
            SubscriptionRpc(self.live, db),
            AddOnRpc(self.live),
            EntitlementRpc(self.live, db, wait_seconds),
            ReservationRpc(self.live, Reserving(self.live, self.desk, self.intake)),
            AccessRpc(self.live, self.streams, watch, wait_seconds),
            InvoiceRpc(run, self._operations),
            OperationRpc(),
            NotificationRpc(db, bell, self.streams, herald.rules_changed),
            CreditNoteRpc(db),
            CreditRpc(run),
            *(each() for each in _OF_TABLES),
            KeyRpc(pepper),
        ]
        anonymous = default_tenant(db) if settings.is_development else None
        tenants = Tenants(db, engine, pepper, open_new_tenants(db, engine, recovered.tenant_ids))
        auth = Authenticator(tenants.verify, anonymous)
        self.handlers = Binder(auth, db, pool, recheck, pulse.require).bind(services)

    def start(self) -> None:
        """Load what checks need, then begin to work."""
        self.live.load()
        holding = self.desk.load(datetime.now(UTC))
        _log.info("reservations are known", count=holding)
        _spare_the_collector()
        workers = (self._pulse, self._commit, self._checkpoint, self._build, self._chores)
        for worker in (*workers, self._billing, self._operations, self._notify, self._identities, self._pack):
            worker.start()
        for job in self._builds:
            self._build.enqueue(job)

    def stop(self) -> None:
        """Make durable what was admitted, write a checkpoint, end the threads."""
        for worker in (self._pulse, self._pack, self._operations, self._notify, self._billing, self._crew):
            worker.stop()
        self._chores.stop()
        self._build.stop()
        self._commit.stop()
        self._checkpoint.stop()
        self._identities.stop()


def _spare_the_collector() -> None:
    """Take what is loaded out of the garbage collector's rounds: it lives as long as the writer."""
    gc.unfreeze()  # what a writer before this one left
    gc.collect()
    gc.freeze()


class _Server:
    """One process: the database, the port, and a writer when it is our turn."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._router = Router()
        self._health = HealthServicer()
        self._stopping = asyncio.Event()
        self._fatal = asyncio.Event()
        self._pool = ThreadPoolExecutor(_RPC_THREADS, thread_name_prefix="rpc")
        self._runs: RunDirectory | None = None

    async def run(self) -> None:
        """Start, serve until asked to stop, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        server = await self._open_port()
        embedded = EmbeddedPostgres(self._settings.data_dir) if self._settings.is_embedded else None
        try:
            url = await asyncio.to_thread(embedded.start) if embedded else self._settings.database_url or ""
            await asyncio.to_thread(migrate, self._settings.migration_database_url or url)
            db = Database(url, pool_size=self._settings.database_pool_size)
            try:
                await asyncio.to_thread(db.check_server)
                self._runs = await asyncio.to_thread(claim, db, self._settings.identity_home)
                while not self._stopping.is_set():
                    await self._be_writer(db, server)
            finally:
                await server.stop(None)
                db.close()
        finally:
            self._pool.shutdown(cancel_futures=True)
            if embedded is not None:
                await asyncio.to_thread(embedded.stop)
        _log.info("stopped")

    async def _open_port(self) -> grpc.aio.Server:
        """Answer health and reflection at once; everything else is NOT_SERVING until we are the writer."""
        server = grpc.aio.server(options=server_options(self._settings))
        server.add_generic_rpc_handlers((self._router,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        reflection.enable_server_reflection(
            [*_SERVICES, reflection.SERVICE_NAME, "grpc.health.v1.Health"], server
        )
        listen = self._settings.listen
        try:
            credentials = credentials_of(self._settings.tls_certificate, self._settings.tls_key)
            if credentials is None:
                server.add_insecure_port(listen)
            else:
                server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            message = (
                f"cannot listen on {listen}: is another server there? Set AMMETER_LISTEN to a free address"
            )
            raise InternalError(message) from error
        host, _, port = self._settings.metrics_listen.rpartition(":")
        try:
            prometheus_client.start_http_server(int(port), host.strip("[]"))
        except OSError as error:
            message = f"cannot serve metrics on {host}:{port}: set AMMETER_METRICS_LISTEN to a free address"
            raise InternalError(message) from error
        await server.start()
        _log.info("listening", address=listen, metrics=self._settings.metrics_listen)
        return server

    async def _be_writer(self, db: Database, server: grpc.aio.Server) -> None:
        """Wait for our turn, recover, serve; returns when asked to stop or unable to go on."""
        taken = await self._wait_for_turn(db)
        if taken is None:
            return
        writer = await self._recovered(db, *taken)
        try:
            await asyncio.to_thread(writer.start)
            self._router.open(writer.handlers)
            await self._set_health(health_pb2.HealthCheckResponse.SERVING)
            metrics.SERVING.set(1)
            _log.info("serving", address=self._settings.listen)
            await _first(self._stopping, self._fatal)
            await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
            if self._stopping.is_set():
                await self._drain(server, writer)
            self._router.close("the server is recovering or stopping: try again")
        finally:
            metrics.SERVING.set(0)
            await asyncio.to_thread(writer.stop)

    async def _recovered(
        self, db: Database, raw: segments.RawConnection, epoch: int, follower: Follower | None
    ) -> _Writer:
        self._fatal.clear()
        loop = asyncio.get_running_loop()

        def on_fatal(error: Exception) -> None:
            _log.critical("this process cannot be the writer any more", exc_info=error)
            loop.call_soon_threadsafe(self._fatal.set)

        options = _engine_options(self._settings, self._runs)
        recovered = await asyncio.to_thread(recover, db, options, time.time_ns() // 1000, follower)
        pepper = load_pepper(self._settings)
        return _Writer(self._settings, db, self._pool, pepper, recovered, raw, epoch, on_fatal)

    async def _wait_for_turn(
        self, db: Database
    ) -> tuple[segments.RawConnection, int, Follower | None] | None:
        """Take the writer's lock and epoch, following the chain meanwhile; None when asked to stop first."""
        holder = f"{socket.gethostname()}:{os.getpid()}"
        raw = await asyncio.to_thread(db.raw)
        standby: StandbyWorker | None = None
        while not self._stopping.is_set():
            epoch = await asyncio.to_thread(segments.acquire_writer, raw, holder)
            if epoch is not None:
                _log.info("this process is the writer", epoch=epoch)
                follower = await asyncio.to_thread(standby.stop) if standby else None
                return raw, epoch, follower
            if standby is None:
                standby = StandbyWorker(db, _engine_options(self._settings, self._runs))
                standby.start()
                self._router.close("this server stands by, another one is the writer: try that one")
                _log.info("standing by: another process is the writer")
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        if standby is not None:
            await asyncio.to_thread(standby.stop)
        raw.close()
        return None

    async def _drain(self, server: grpc.aio.Server, writer: _Writer) -> None:
        """Take no new calls, let those under way end."""
        _log.info("stopping", drain_seconds=self._settings.drain_seconds)
        writer.usage.drain()
        writer.streams.drain()
        # A connection that is closed with bytes unread is reset, and the status under way to its client lost.
        await asyncio.sleep(_LINGER_SECONDS)
        await server.stop(self._settings.drain_seconds)

    async def _set_health(self, status: int) -> None:
        for name in ("", *_SERVICES):
            await self._health.set(name, status)


# What needs nothing but the transaction that a call comes with.
_OF_TABLES: tuple[type[Service], ...] = (BillingRpc, PriceListRpc, PriceOverrideRpc, CouponRpc)
_SERVICES = (
    UsageRpc.service,
    MeterRpc.service,
    CustomerRpc.service,
    CatalogRpc.service,
    SubscriptionRpc.service,
    AddOnRpc.service,
    EntitlementRpc.service,
    ReservationRpc.service,
    AccessRpc.service,
    NotificationRpc.service,
    InvoiceRpc.service,
    OperationRpc.service,
    CreditNoteRpc.service,
    CreditRpc.service,
    *(each.service for each in _OF_TABLES),
    KeyRpc.service,
)


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()

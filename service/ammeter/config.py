"""Configuration: environment variables AMMETER_*, each with a default that works.

`python -m ammeter.config` prints docs/configuration.md.
"""

import os
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile, gettempdir
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX: Final = "AMMETER_"


class ConfigurationError(Exception):
    """One or more settings are wrong; the message names each and says what to do."""


def _host_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        message = "give host:port, such as 127.0.0.1:7117 or [::1]:7117"
        raise ValueError(message)
    return text


def _postgres_url(text: str) -> str:
    if not text.startswith(("postgresql://", "postgres://")):
        message = "give a URL such as postgresql://user:password@host/database"
        raise ValueError(message)
    return text


Address = Annotated[str, AfterValidator(_host_port)]
PostgresUrl = Annotated[str, AfterValidator(_postgres_url)]
Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB


class Settings(BaseSettings):
    """All that can be set. A field x is the environment variable AMMETER_X."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    # Storage
    database_url: PostgresUrl | None = Field(
        None,
        repr=False,  # it may hold a password
        description="The Postgres to use, 15 or newer. None: an embedded one, in the data directory.",
    )
    migration_database_url: PostgresUrl | None = Field(
        None,
        repr=False,
        description="As whom to migrate: a role that may create tables and roles. None: as the database URL.",
    )
    database_pool_size: Positive = Field(8, description="Connections kept open; twice as many under load.")
    data_dir: Path = Field(
        Path(".ammeter"), description="Where the embedded Postgres and the generated pepper live."
    )

    # Addresses and who may call
    listen: Address = Field("127.0.0.1:7117", description="Where gRPC is served.")
    metrics_listen: Address = Field(
        "127.0.0.1:7118", description="Where Prometheus reads metrics, over HTTP."
    )
    tls_certificate: Path | None = Field(None, description="Certificate chain, PEM. Needed off loopback.")
    tls_key: Path | None = Field(None, description="Private key of the certificate, PEM.")
    allow_insecure: bool = Field(
        default=False, description="Serve off loopback without TLS, as behind a proxy that ends it."
    )
    allow_anonymous_loopback: bool = Field(
        default=True,
        description="On loopback, serve calls without a key as the default tenant. For development.",
    )
    key_pepper: SecretStr | None = Field(
        None,
        description="Secret under which API keys are hashed, 32 characters or more. None: generated and "
        "kept in the data directory; needed with a database URL, except in development.",
    )

    # Events
    event_horizon_days: Positive = Field(35, description="How far back an event's time may lie.")
    event_future_seconds: Natural = Field(300, description="How far ahead an event's time may lie.")
    codec: Literal["lz4", "zstd", "none"] = Field("lz4", description="How segments are compressed.")
    identity_hot_days: Positive = Field(
        3, description="Days that identities stay in memory; older ones go to files."
    )
    identity_dir: Path | None = Field(
        None,
        description="Where files of identities are, a cache. None: `identities` in the data directory; with "
        "a database URL, a directory of this account's in the system's for temporary files.",
    )
    max_pending_bytes: Positive = Field(
        64 * _MIB, description="Bytes taken in and not yet durable; beyond it, back-pressure."
    )
    checkpoint_interval_seconds: Annotated[float, Field(gt=0)] = Field(
        5, description="How often open windows are written."
    )
    checkpoint_rows: Positive = Field(1_000_000, description="Open windows that make a checkpoint early.")
    pack_interval_seconds: Annotated[float, Field(ge=0)] = Field(
        60, description="How often small segments are packed into fewer rows; 0: never."
    )
    request_id_days: Positive = Field(7, description="How long a request_id is remembered.")
    min_position_wait_ms: Natural = Field(
        1000, description="How long a query waits for the min_position it demands."
    )

    # Billing
    billing_interval_seconds: Annotated[float, Field(gt=0)] = Field(
        30, description="How often the billing worker looks for what is due."
    )

    operation_days: Positive = Field(
        30, description="How long an operation is kept after its end. What it made stays."
    )
    billing_processes: Natural | None = Field(
        None,
        description="Processes of their own that invoices are made in; 0: the server's own. None: 2, or 0 on "
        "a single core.",
    )

    # Limits of calls and connections
    max_request_bytes: Positive = Field(4 * _MIB, description="Largest request.")
    max_metadata_bytes: Positive = Field(8 * _KIB, description="Largest metadata of a call.")
    # gRPC counts a call until it is torn down, which is later than it is answered: of 64 at a time,
    # a limit of 100 refused some on a busy server.
    max_streams: Positive = Field(1000, description="Calls at a time on one connection.")
    stream_window_bytes: Positive = Field(
        8 * _MIB,
        description="Bytes of a usage stream not yet durable, and of a call not yet read; beyond, it waits.",
    )
    handshake_timeout_seconds: Positive = Field(5, description="Time to finish a TLS and HTTP/2 handshake.")
    keepalive_seconds: Positive = Field(60, description="Silence after which a connection is probed.")
    keepalive_timeout_seconds: Positive = Field(
        20, description="Time to answer a probe before being cut off."
    )
    min_client_ping_seconds: Positive = Field(10, description="Clients that probe more often are cut off.")
    max_connection_idle_seconds: Positive = Field(300, description="A connection without calls is closed.")
    max_connection_age_seconds: Positive = Field(
        1800, description="A connection is asked to reconnect, so that load spreads over servers."
    )
    max_connection_age_grace_seconds: Positive = Field(60, description="Time its calls have to end then.")
    drain_seconds: Positive = Field(10, description="Time that calls have to end on a graceful stop.")

    # Logs
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["json", "console"] = Field("json", description="For machines, or for eyes.")

    # Tests of ammeter itself
    test_faults: bool = Field(
        default=False, description="Allow faults, in development: for tests of ammeter itself."
    )
    faults: str | None = Field(None, description="What goes wrong on purpose; needs AMMETER_TEST_FAULTS.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse combinations that would surprise; each message names a variable."""
        problems = []
        if (self.tls_certificate is None) != (self.tls_key is None):
            problems.append("AMMETER_TLS_CERTIFICATE and AMMETER_TLS_KEY go together: set both or neither")
        if not (self.listens_on_loopback or self.tls_certificate or self.allow_insecure):
            problems.append(
                f"AMMETER_LISTEN={self.listen} is not loopback: set AMMETER_TLS_CERTIFICATE and "
                "AMMETER_TLS_KEY, or AMMETER_ALLOW_INSECURE=true if something in front ends TLS"
            )
        # Two servers on one database need the same pepper, and so does one that moves.
        if self.database_url and not self.key_pepper and not self.is_development:
            problems.append(
                "AMMETER_KEY_PEPPER is needed with AMMETER_DATABASE_URL: set 32 random characters or more"
            )
        if self.key_pepper and len(self.key_pepper.get_secret_value()) < 32:  # noqa: PLR2004 - 256 bits as hex is 64
            problems.append("AMMETER_KEY_PEPPER is too short: set 32 random characters or more")
        if self.faults and not (self.test_faults and self.is_development):
            problems.append(
                "AMMETER_FAULTS lets things go wrong on purpose: remove it; tests of ammeter itself set "
                "AMMETER_TEST_FAULTS=true, too, and serve on loopback without keys"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can call."""
        host = self.listen.rpartition(":")[0].strip("[]")
        try:
            return ip_address(host).is_loopback
        except ValueError:  # a name, whatever it begins with
            return host == "localhost"

    @property
    def is_development(self) -> bool:
        """Whether calls without a key are served: on loopback, unless that is switched off."""
        return self.listens_on_loopback and self.allow_anonymous_loopback

    @property
    def identity_home(self) -> Path:
        """Where files of identities are."""
        if self.identity_dir is not None:
            return self.identity_dir
        if self.is_embedded:
            return self.data_dir / "identities"
        return Path(gettempdir()) / f"ammeter-identities-{os.getuid()}"

    @property
    def is_embedded(self) -> bool:
        """Whether the database is one of our own."""
        return self.database_url is None


def load(**overrides: object) -> Settings:
    """Read the environment; `overrides` (a command's options) win where they are not None.

    Raises ConfigurationError.
    """
    given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = [_explain(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False)]
        raise ConfigurationError("\n".join(problems)) from error


def _explain(where: tuple[int | str, ...], what: str) -> str:
    text = what.removeprefix("Value error, ")
    if not where:
        return text  # from _agree, which names the variables itself
    name = str(where[0]).removeprefix(PREFIX.lower())
    return f"{PREFIX}{name.upper()}: {text}; it is for: {Settings.model_fields[name].description}"


def load_pepper(settings: Settings) -> bytes:
    """Return the secret under which API keys are hashed; made once for an embedded database."""
    if settings.key_pepper:
        return settings.key_pepper.get_secret_value().encode()
    path = settings.data_dir / "key-pepper"
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written whole, then linked: of two processes that start at once, the first one's stays.
        with NamedTemporaryFile(dir=settings.data_dir) as fresh:  # 0600
            fresh.write(token_hex(32).encode())
            fresh.flush()
            os.fsync(fresh.fileno())
            with suppress(FileExistsError):
                path.hardlink_to(fresh.name)
    return path.read_bytes()


def document() -> str:
    """Write docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "Set by environment variables; every default works as it is. Generated from",
        "`service/ammeter/config.py` by `make docs`.",
        "",
        "| variable | default | what it is |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.default is None:
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


if __name__ == "__main__":
    sys.stdout.write(document())

"""The port: limits and certificates, from the settings."""

from pathlib import Path

import grpc

from ammeter.config import Settings


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Limits set on purpose; the names are gRPC core's channel arguments."""
    return [
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * settings.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", settings.handshake_timeout_seconds * 1000),
        ("grpc.keepalive_time_ms", settings.keepalive_seconds * 1000),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout_seconds * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", settings.min_client_ping_seconds * 1000),
        ("grpc.max_connection_idle_ms", settings.max_connection_idle_seconds * 1000),
        ("grpc.max_connection_age_ms", settings.max_connection_age_seconds * 1000),
        ("grpc.max_connection_age_grace_ms", settings.max_connection_age_grace_seconds * 1000),
        # Two servers silently sharing a port is how a stale process steals traffic.
        ("grpc.so_reuseport", 0),
        # gRPC guesses how much to take in beyond what is read, and on a busy machine it guesses tens of MiB.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", settings.stream_window_bytes),
    ]


def credentials_of(certificate: Path | None, key: Path | None) -> grpc.ServerCredentials | None:
    """Read the certificate and its key; None for a port without TLS."""
    if certificate is None or key is None:
        return None
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])

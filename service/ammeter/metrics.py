"""What the server counts and times, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

RPCS = Counter("ammeter_rpcs_total", "Calls answered, by method and gRPC code.", ["method", "code"])
RPC_SECONDS = Histogram("ammeter_rpc_seconds", "Time to answer a call.", ["method"], buckets=_SECONDS)
EVENTS = Counter("ammeter_events_total", "Events judged, by outcome.", ["outcome"])
REJECTIONS = Counter("ammeter_rejected_events_total", "Events rejected, by reason.", ["reason"])
COMMIT_SECONDS = Histogram("ammeter_commit_seconds", "Time to make a group durable.", buckets=_SECONDS)
COMMIT_RETRIES = Counter("ammeter_commit_retries_total", "Commits tried again, by cause.", ["cause"])
COMMITTED_EVENTS = Counter("ammeter_committed_events_total", "Events made durable.")
SEGMENT_BYTES = Counter("ammeter_segment_bytes_total", "Payload bytes made durable, as stored.")
CHECKPOINT_SECONDS = Histogram("ammeter_checkpoint_seconds", "Time to write a checkpoint.", buckets=_SECONDS)
CHECKPOINT_ROWS = Counter("ammeter_checkpoint_rows_total", "Partials written to blocks.")
PACK_SECONDS = Histogram("ammeter_pack_seconds", "Time to pack what there was to pack.", buckets=_SECONDS)
PACKED_ROWS = Counter("ammeter_packed_rows_total", "Rows of small segments that packs took the place of.")
UNPACKABLE_TENANTS = Gauge(
    "ammeter_unpackable_tenants", "Tenants whose segments do not verify, and so are not packed."
)
CHECKS = Counter("ammeter_checks_total", "Entitlement checks answered, by reason.", ["reason"])
BALANCE_RECOMPUTES = Counter(
    "ammeter_balance_recomputes_total", "Balances of grants computed anew: a new span, or late usage."
)
RESERVATIONS = Counter("ammeter_reservations_total", "Decisions about reservations, by outcome.", ["outcome"])
OPEN_RESERVATIONS = Gauge("ammeter_open_reservations", "Reservations and leases that hold something.")
NOTIFICATIONS = Counter("ammeter_notifications_total", "Thresholds that were reached and told.")
INVOICES = Counter("ammeter_invoices_total", "Invoices made, issued, and failed to be either.", ["what"])
BILLING_SECONDS = Histogram(
    "ammeter_billing_seconds", "Time of a transaction that makes or issues invoices.", buckets=_SECONDS
)
SERVING = Gauge("ammeter_serving", "1 while this process is the writer and serves.")
RECOVERY_SECONDS = Gauge("ammeter_recovery_seconds", "How long the last recovery took.")
RECOVERED_EVENTS = Gauge("ammeter_recovered_events", "Events that the last recovery read back.")
ENGINE = Gauge("ammeter_engine", "State of the core: identities, groups, rows, bytes.", ["what"])

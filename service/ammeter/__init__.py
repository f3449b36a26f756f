"""Exact usage metering, entitlements and invoices over gRPC."""

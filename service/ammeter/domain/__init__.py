"""Rules: plain objects and functions; no I/O, no clock."""

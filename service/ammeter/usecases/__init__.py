"""One verb for each function."""

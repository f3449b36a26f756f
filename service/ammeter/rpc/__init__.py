"""Messages to values and back, one file for each service."""

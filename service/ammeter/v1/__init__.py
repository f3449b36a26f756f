"""Messages and stubs generated from proto/ammeter/v1 by `make proto`."""

"""Lets `python -m ammeter.cli` do what `ammeter` does."""

from ammeter.cli import main

main()

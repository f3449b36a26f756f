"""What ammeter costs, measured beside what it is compared with; docs/performance.md reads the results."""

"""Invoices and credit notes as they are printed: words, numbers and rows, without a format."""

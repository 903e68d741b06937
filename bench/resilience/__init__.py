"""Trials of the service where things go wrong, each a module; `python -m bench.resilience` holds them."""

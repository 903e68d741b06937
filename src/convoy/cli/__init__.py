"""The verbs of `python -m convoy`."""

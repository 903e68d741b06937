"""Paths, params, atomic files, locks, and how a stage runs."""

"""Texts: contract and preprocessing, prepared form, data sets, near-duplicates, baselines."""

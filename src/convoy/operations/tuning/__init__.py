"""`python -m convoy tune`: better params for a candidate, by Optuna."""

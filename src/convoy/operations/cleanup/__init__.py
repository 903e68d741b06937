"""`python -m convoy gc`: what may be removed, and its removal."""

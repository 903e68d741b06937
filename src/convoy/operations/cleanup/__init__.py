"""`python -m convoy gc`: what may go, and its removal."""

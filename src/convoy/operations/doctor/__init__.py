"""`python -m convoy doctor`: what Convoy depends on, checked."""

"""`python -m convoy init`: params for a user's own data."""

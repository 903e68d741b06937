"""Prepared splits to trained candidates, by Lightning; checkpoints."""

"""Layers that several networks for images share."""

"""Layers that several networks for texts share."""

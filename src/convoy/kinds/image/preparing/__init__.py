"""How raw images are prepared: converted, compared, measured."""

"""An old name, kept because registered versions of earlier releases name their loader by it."""

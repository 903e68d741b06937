"""The gates, one file each: its limits, and the verdict on what was measured."""

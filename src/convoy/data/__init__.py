"""Raw items to prepared splits, and the report of the data."""

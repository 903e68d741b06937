"""What the preparation of all kinds shares: its protocol, near-duplicates, the figures of a data report."""

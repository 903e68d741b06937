"""Networks that read texts, and what they see of time."""

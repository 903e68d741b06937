"""Networks that read images, and what they see of space."""

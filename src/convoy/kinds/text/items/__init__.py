"""A text, from its characters to the token ids that a network takes."""

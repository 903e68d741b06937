"""How raw texts are prepared: tokenised, compared, measured."""

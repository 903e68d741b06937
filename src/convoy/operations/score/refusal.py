"""Why a scoring does not begin or does not go on, in a sentence with the remedy."""


class ScoringRefused(RuntimeError):
    """Input, output, options or the deployed model cannot be used as asked; nothing that was there is changed."""

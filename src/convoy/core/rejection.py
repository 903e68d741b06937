"""The error of an input that cannot be used."""


class InputRejected(ValueError):
    """An input that cannot be used: `code` is for programs, `message` for people; neither repeats the input."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

"""How those who work tell what they do, whoever listens: a verb on the terminal, a test, a log."""

from collections.abc import Callable

Say = Callable[[str], None]  # takes one line, without its end

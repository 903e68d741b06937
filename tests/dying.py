"""A process that dies before the nth of the steps it takes: forked, so that all modules are loaded already."""

import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

Step = tuple[Any, str]  # what holds a function, and its name


def end_after(step: int, steps: Callable[[], Iterable[Step]], work: Callable[[], None]) -> int:
    """The exit status of `work` in a child: 9 where it died before step number `step`, 0 where it came to its end.

    `steps` is called in the child, and names every function whose call is a step.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 minds forks beside threads
        pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = step

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return call(*arguments, **options)

        return wrapped

    try:
        for owner, name in steps():
            setattr(owner, name, dying(getattr(owner, name)))
        work()
        os._exit(0)
    finally:
        os._exit(1)

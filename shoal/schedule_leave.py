"""Ctrl-C while there is nothing to keep yet: one line, exit code 130, no traceback.

    with leaving():            # libraries are loaded: an exception there would come out as somebody's traceback
        import …
    raise Left("interrupted while …")      # from the main thread, later on; `left.out()` ends the process

Threads that compile or solve cannot be asked to end at once, so the process is ended without waiting for them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED = 130
"""What shells report for a command ended by Ctrl-C."""
EARLY = "interrupted before the search began; nothing was written"


class Left(Exception):
    """The user left; nothing was found that could be kept."""

    def out(self) -> NoReturn:
        """Say so and end the process."""
        sys.stdout.flush()
        _gone(str(self))


@contextmanager
def leaving() -> Iterator[None]:
    """Ctrl-C meanwhile ends the process. Only in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: _gone(EARLY))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _gone(text: str) -> NoReturn:
    os.write(2, f"\nshoal: {text}\n".encode())
    os._exit(INTERRUPTED)

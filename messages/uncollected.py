"""Many objects made at once, none of them in a circle: meanwhile Python's collector need not look through all of them.

    @uncollected
    def judge_a_large_plan(...): ...

Of a problem of 100,000 operations and its plan a million containers stay. Each full look through them takes half a
second, and there is one for every quarter that is added: half the time, for nothing. Other threads go on
uncollected as well, for the seconds that such a call takes; what they leave is found afterwards.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_at_work = 0  # calls that want no collecting
_was_on = False  # before the first of them


def uncollected(does: Callable[P, T]) -> Callable[P, T]:
    """`does`, with the collector off until the last such call has ended; nothing else is different."""

    @wraps(does)
    def without(*args: P.args, **words: P.kwargs) -> T:
        global _at_work, _was_on
        with _lock:
            if _at_work == 0:
                _was_on = gc.isenabled()
                gc.disable()
            _at_work += 1
        try:
            return does(*args, **words)
        finally:
            with _lock:
                _at_work -= 1
                if _at_work == 0 and _was_on:
                    gc.enable()

    return without

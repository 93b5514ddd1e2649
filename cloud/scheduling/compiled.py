"""Machine code from Python functions: compiled once, cached beside the source, running without the GIL.

@compiled
def total(values: Floats) -> float: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code. The first call with new types compiles; later processes read it from the cache."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))

"""Machine code from Python functions: compiled once, cached beside the source, running without the GIL.

@compiled
def total(values: Floats) -> float: ...

Compiled code holds the code and constants of what it uses. Numba looks only at a function's own file before it takes
code from its cache; here the files its module imports are looked at as well, so that no kernel runs stale parts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_IMPORTED = re.compile(r"^from ((?:cloud|messages)\.[\w.]+) import", re.MULTILINE)


def compiled(function: F) -> F:
    """`function` as machine code. The first call with new types compiles; later processes read it from the cache."""
    made: Any = numba.njit(cache=True, nogil=True)(function)
    made._cache._cache_file._source_stamp = _stamp(function.__module__)
    return cast(F, made)


@cache
def _stamp(module: str) -> str:
    """Changes with the source of a module of kernels, those it imports, and whatever any of these imports."""
    sources: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = getattr(sys.modules.get(name), "__file__", None)
        if name in sources or path is None:
            continue
        sources[name] = Path(path).read_text(encoding="utf-8")
        if name == module or "@compiled" in sources[name]:
            todo += _IMPORTED.findall(sources[name])
    return sha256(repr(sorted(sources.items())).encode()).hexdigest()

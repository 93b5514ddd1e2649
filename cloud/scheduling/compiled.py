"""Machine code from Python functions: compiled once, cached beside the source, running without the GIL.

@compiled
def total(values: Floats) -> float: ...

Compiled code holds the code and constants of what it uses. Numba looks only at a function's own file before it takes
code from its cache; here the files its module imports are looked at as well, so that no kernel runs stale parts.

Compiling is kept short, for on a new computer somebody waits for it. LLVM works at level 1, which leaves kernels about
as fast as 3. A function that kernels call is compiled once for all integers, not for every width and every constant it
is called with. Arrays are copied and filled by `cloud.scheduling.arrays`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config, types
from numba.core.registry import cpu_target

F = TypeVar("F", bound=Callable[..., Any])

OPTIMISED = 1
"""LLVM's level; the environment's NUMBA_OPT overrides."""

_IMPORTED = re.compile(r"^from ((?:cloud|messages)\.[\w.]+) import", re.MULTILINE)


def compiled(function: F) -> F:
    """`function` as machine code. The first call with new types compiles; later processes read it from the cache."""
    njit: Any = numba.njit  # its types do not know every option
    made = njit(cache=True, nogil=True, no_cfunc_wrapper=True)(function)
    by_types = made.get_call_template
    made.get_call_template = lambda args, kws: by_types([_wide(one) for one in args], {k: _wide(kws[k]) for k in kws})
    made._cache._cache_file._source_stamp = _stamp(function.__module__)
    return cast(F, made)


def _wide(kind: Any) -> Any:
    """The type for which a kernel calls another: no constants, integers of 64 bits."""
    plain: Any = types.unliteral(kind)  # type: ignore[no-untyped-call]
    return types.int64 if plain in (types.int8, types.int16, types.int32) else plain


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


if "NUMBA_OPT" not in os.environ:
    _level: Any = config
    _level.OPT = type(_level.OPT)(OPTIMISED)
# What Numba would import at the first call of a kernel, when somebody waits for a plan.
cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()

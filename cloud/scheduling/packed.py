"""A NamedTuple of arrays as one pointer, for compiled kernels.

    shop = packed(shop)              # the same names, the same arrays
    scratch = scratch_of(shop)       # room for one thread, packed

Numba hands a tuple of 70 arrays on as 500 words: calling a kernel would cost 30 µs, and compiling one that calls others
a minute. For type checkers a packed shop is a `Shop`, and in compiled code it is used like one; Python cannot look in.
"""

from __future__ import annotations

from typing import cast

from numba.core import types
from numba.experimental import structref

from cloud.scheduling.compiled import compiled
from cloud.scheduling.scratch import Scratch, room_for
from cloud.scheduling.shop import Shop


@structref.register
class ShopType(types.StructRef):
    """Of a packed shop."""


@structref.register
class ScratchType(types.StructRef):
    """Of a packed scratch."""


class PackedShop(structref.StructRefProxy):
    """A `Shop` as kernels take it."""


class PackedScratch(structref.StructRefProxy):
    """A `Scratch` as kernels take it."""


structref.define_proxy(PackedShop, ShopType, list(Shop._fields))  # type: ignore[no-untyped-call]
structref.define_proxy(PackedScratch, ScratchType, list(Scratch._fields))  # type: ignore[no-untyped-call]


def packed(shop: Shop) -> Shop:
    """The arrays of `shop` behind one pointer; a packed one as it is."""
    return cast(Shop, _pack_shop(shop)) if isinstance(shop, Shop) else shop


def scratch_of(shop: Shop) -> Scratch:
    """Room for one thread to work on `shop` (not packed), packed."""
    return cast(Scratch, _pack_scratch(room_for(shop)))


@compiled
def _pack_shop(shop: Shop) -> PackedShop:
    return PackedShop(*shop)  # type: ignore[no-untyped-call]


@compiled
def _pack_scratch(scratch: Scratch) -> PackedScratch:
    return PackedScratch(*scratch)  # type: ignore[no-untyped-call]

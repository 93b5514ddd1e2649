"""What a plant takes apart, recovers and builds from: the `[circular]` part of a plant file.

    [circular]
    stock = { core = 6 }
    sources = { worn-rotor = "strip", rotor = ["refurbish", "buy-rotor"] }
    recovers.strip = { worn-rotor = 0.8, housing = 0.9, bearing = [2, 0.5] }
    recovers.refurbish = { rotor = 0.9 }
    recovers.buy-rotor = { rotor = 1.0 }
    needs.strip = { core = 1 }
    needs.refurbish = { worn-rotor = 1 }
    needs.alternator = { rotor = 1, housing = 1, bearing = 2 }

Two rules. A job takes the components it *needs* when its first step begins; before they are in stock it does not begin.
What a job *recovers* is known when its last step ends: of every component so many pieces, each good with the stated
probability. Where a component is short, a job of one of its *sources* is begun. Read strictly: a component that nothing
brings, or one that is made of itself, is an error that says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from messages.contracts import External

MARK = "~"
"""A job that the plant itself begins is named `<product>~<number>`; no order may use such a name."""

MAX_COMPONENTS = 64
"""Of one product; a record of what was recovered names no more."""
_OWN = re.compile(rf"(.+){MARK}(0|[1-9][0-9]{{0,8}})")

Pieces = Annotated[int, Field(ge=1, le=1_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class Circular(BaseModel):
    """Components, where they come from and what becomes of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    needs: dict[External, dict[External, Pieces]] = Field({}, description="product → component → pieces")
    recovers: dict[External, dict[External, Share | tuple[Pieces, Share]]] = Field(
        {}, description="product → component → chance that it is good, or [pieces, chance of each]"
    )
    sources: dict[External, tuple[External, ...]] = Field(
        {}, description="component → products that bring it: the first whose own needs can be met is begun"
    )
    stock: dict[External, Annotated[int, Field(ge=0, le=1_000_000)]] = Field({}, description="component → at first")
    spawn_max: int = Field(3, ge=1, le=100, description="jobs of one source that the plant begins at a time")
    worth: dict[External, Weight] = Field({}, description="component → what a recovered one saves, in money")
    scrap_kg: dict[External, dict[External, Weight]] = Field(
        {}, description="component → material → kg to recycling when a piece is found not good"
    )
    residue_kg: dict[External, dict[External, Weight]] = Field(
        {}, description="product → material → kg to recycling of every job of it that is done"
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {name: (source,) if isinstance(source, str) else source for name, source in given.items()}

    @model_validator(mode="after")
    def _sound(self) -> Circular:
        recovered = self.brought
        for component, products in self.sources.items():
            if not products:
                raise ValueError(f"sources.{component}: no product; leave it out where nothing is to be begun for it")
            for product in products:
                if component not in self.recovers.get(product, {}):
                    raise ValueError(
                        f"sources.{component}: {product!r} does not bring it; state recovers.{product}.{component}"
                    )
        for product, needed in self.needs.items():
            for component in needed:
                if component not in recovered and component not in self.stock:
                    raise ValueError(
                        f"needs.{product}: nothing brings {component!r}; correct it (there are: "
                        f"{', '.join(sorted({*recovered, *self.stock})) or 'none'}), or state it in `stock`"
                    )
        for what, named in (("worth", self.worth), ("scrap_kg", self.scrap_kg)):
            for component in named:
                if component not in self.components:
                    raise ValueError(f"{what}: no component {component!r}; correct it or leave it out")
        for component in self.sources:
            self._refuse_circle(component, ())
        return self

    @property
    def brought(self) -> set[str]:
        """Components that some product recovers."""
        return {component for found in self.recovers.values() for component in found}

    @property
    def components(self) -> set[str]:
        """All of them."""
        return {component for needed in self.needs.values() for component in needed} | self.brought | set(self.stock)

    def check(self, products: Mapping[str, Collection[str]], scrapping: Collection[str]) -> None:
        """ValueError naming the cure where this does not fit the plant: `products` with the machines that make them."""
        for what, named in (("needs", self.needs), ("recovers", self.recovers), ("residue_kg", self.residue_kg)):
            for product in named:
                if product not in products:
                    raise ValueError(f"circular.{what}: no product {product!r}; add it to `products`, or correct it")
        for product, found in self.recovers.items():
            if len(found) > MAX_COMPONENTS:
                raise ValueError(f"circular.recovers.{product}: {len(found)} components, {MAX_COMPONENTS} at most")
        for product in {*self.needs, *self.recovers}:
            for machine in sorted(set(products[product]) & set(scrapping)):
                raise ValueError(
                    f"circular: {product!r} may be made on {machine!r}, whose workshop scraps what it breaks down "
                    "with, and components with it: let it restart or resume"
                )
        for product in products:
            if number_of(product) is not None or len(product) > 118:
                raise ValueError(f"product {product!r}: jobs the plant begins are named {product}{MARK}1; rename it")

    def pieces(self, product: str) -> Iterator[tuple[str, int, float]]:
        """What a job of `product` may bring: component, pieces, chance of each to be good."""
        for component, stated in self.recovers.get(product, {}).items():
            count, chance = stated if isinstance(stated, tuple) else (1, stated)
            yield component, count, chance

    def _refuse_circle(self, component: str, above: tuple[str, ...]) -> None:
        if component in above:
            circle = " → ".join((*above[above.index(component) :], component))
            raise ValueError(f"sources: {circle}: it would be made of itself; give one of them another source")
        for product in self.sources.get(component, ()):
            for needed in self.needs.get(product, {}):
                self._refuse_circle(needed, (*above, component))


def spawned(product: str, number: int) -> str:
    """The name of the plant's own job of `product` of this number: the same whoever begins it."""
    return f"{product}{MARK}{number}"


def number_of(job: str) -> tuple[str, int] | None:
    """Product and number of a job that a plant begins itself, by its name; None: it was ordered."""
    found = _OWN.fullmatch(job)
    return (found[1], int(found[2])) if found else None

"""What will become of components: stock and what will come, less what will be consumed. A part of the inventory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from messages.circular import Circular

SHORT = 0.5 - 1e-9
"""So many pieces must be missing before a source is begun."""


@dataclass
class Outlook:
    """Component → stock and what will come, less what will be consumed; and what is under way at all."""

    circular: Circular
    net: dict[str, float]
    coming: set[str]

    def count(self, needs: Mapping[str, int], product: str, times: int = 1) -> None:
        """So many more jobs of `product` that have yet to consume `needs`."""
        for name, pieces in needs.items():
            self.net[name] -= times * pieces
        for name, pieces, chance in self.circular.pieces(product):
            self.net[name] += times * pieces * chance
            if times > 0 and chance > 0:
                self.coming.add(name)

    def source(self, component: str) -> str | None:
        """The first product that brings it and whose own needs can be met."""
        for product in self.circular.sources.get(component, ()):
            needs = self.circular.needs.get(product, {})
            if all(pieces - self.net[name] < SHORT or self.source(name) for name, pieces in needs.items()):
                return product
        return None

    def comes(self, component: str) -> bool:
        """Whether something under way may bring it, or could be begun for it."""
        return component in self.coming or self.source(component) is not None

    def is_lost(self, component: str) -> bool:
        """Whether it is short, and nothing will bring it."""
        return -self.net[component] >= SHORT and not self.comes(component)

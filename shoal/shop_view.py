"""What the demo shows of a plant that is judged task by task: batons, components, who judges."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from messages.circular import number_of
from messages.contracts import Envelope
from messages.negotiation import JudgeInForce, ShopView, Workpiece
from messages.observe import Watcher
from messages.route import Route
from messages.routes import JUDGE, PEER_JUDGE, SHOP, WORKPIECE
from shoal.view import View

OVER = ("done", "cancelled")


@dataclass
class SwarmView(View):
    """Fed by the batons, the view of the shop, and the word of whoever judges. `orders`: jobs that were ordered."""

    orders: frozenset[str] = frozenset()
    shop: ShopView | None = None
    batons: dict[str, Workpiece] = field(default_factory=dict)
    judge: str = "nobody"
    judges: list[str] = field(default_factory=list)
    """who judged, in order"""

    @property
    def finished(self) -> bool:
        """Every ordered job is over, and all the plant began itself."""
        return self.orders <= self.batons.keys() and all(one.state in OVER for one in self.batons.values())

    async def follow(self, watcher: Watcher) -> None:
        """Take in what the bus says, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().follow(watcher))
            group.create_task(self._shop(watcher))
            group.create_task(self._batons(watcher))
            group.create_task(self._judges(watcher, JUDGE))
            group.create_task(self._judges(watcher, PEER_JUDGE))

    async def _shop(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(SHOP, site=self.plant.site):
            shop: ShopView | None = seen.message
            if shop is not None:
                down = {name for name, one in shop.machines.items() if one.state == "down"}
                before = {name for name, one in self.shop.machines.items() if one.state == "down"} if self.shop else ()
                for name in sorted(down.difference(before)):
                    self.say(f"{name} broke down", "bold red")
                self.shop = shop

    async def _batons(self, watcher: Watcher) -> None:
        async for seen in watcher.messages(WORKPIECE, site=self.plant.site):
            baton: Workpiece | None = seen.message
            if baton is None:
                continue
            before = self.batons.get(baton.job)
            self.batons[baton.job] = baton
            if before is None and number_of(baton.job):
                self.say(f"{baton.job}: begun by the plant itself", "cyan")
            if baton.state == "cancelled" and (before is None or before.state != "cancelled"):
                self.say(f"{baton.job}: given up ({baton.why})", "yellow")
            elif before is not None and baton.state == "done" and before.state != "done" and baton.job in self.orders:
                self.say(f"{baton.job}: built", "green")

    async def _judges(self, watcher: Watcher, route: Route) -> None:
        async for seen in watcher.messages(route, site=self.plant.site):
            word: Envelope[JudgeInForce] | None = seen.message
            if word is not None:
                judge = f"{word.body.judge}, term {word.body.term}"
                if judge != self.judge:
                    self.judge = judge
                    self.judges.append(judge)
                    self.say(f"judge: {judge}", "magenta")

    def _head(self) -> RenderableType:
        line = Text.assemble(
            ("Shoal demo · ", "bold"),
            (self.plant.site, "bold cyan"),
            f" · plant time {self._hour(self.now)} (simulated machines, lock step) · {self.elapsed_s:.0f} s real · ",
            (self.phase, "bold"),
        )
        if self.shop is None:
            return Panel(line)
        built = sum(self.batons[job].state == "done" for job in self.orders & self.batons.keys())
        own = [baton for job, baton in self.batons.items() if job not in self.orders]
        stock = ", ".join(f"{count} {name}" for name, count in self.shop.inventory.items() if count)
        table = Table.grid(padding=(0, 3))
        table.add_row(
            ProgressBar(total=max(1, len(self.orders)), completed=built, width=24),
            f"ordered jobs built {built}/{len(self.orders)}\njudge: {self.judge}",
            f"begun by the plant itself {len(own)},\nof these over {sum(one.state in OVER for one in own)}",
            f"in stock: {stock or 'nothing'}",
        )
        return Panel(Group(line, table))

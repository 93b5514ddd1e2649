"""Where plant time waits for a judge, it waits for what needs none: bids and answers of nodes that are there.

await settle(lambda: awaits_bids(book), news)       # `news`: set whenever something was heard
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from messages.dispatch.tenders import Tenders

SETTLE_S = 0.5
"""Real time that a tick waits at most."""


async def settle(waiting: Callable[[], bool], news: asyncio.Event) -> None:
    """Until nothing is waited for, `SETTLE_S` at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_S):
            while waiting():
                news.clear()
                await news.wait()


def awaits_bids(book: Tenders) -> bool:
    """Whether nodes that are there have not said that they obey, or were asked for a bid."""
    asked = (node for task in book.of("tendered") for node in task.asked)
    return bool(book.silent) or any(book.nodes.is_online(node) for node in asked)


def awaits_answers(book: Tenders) -> bool:
    """Whether nodes that are there have not said what they made of an award."""
    return any(book.nodes.is_there(task.machine) for task in book.of("awarded"))

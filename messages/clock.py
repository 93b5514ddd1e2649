"""Plant time. One clock per process: the wall clock, or a lock step in which a whole plant advances together.

    clock = clock_from(settings.clock)                 # None → WallClock, "host:port" → LockStepClock
    await clock.drive(node.on_tick, phase="node")      # calls on_tick(now) for ever, once per tick

In lock step a `ClockService` says the time to all, phase by phase (machines, then nodes, then cloud), and
goes on only when everyone has answered: whoever plans, holds time still. A process that dies is left out
until it connects again; one that says nothing for `patience_s` of real time is put out. Keepalive, retries
and certificates never use this clock.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, Protocol

from messages.errors import BrokenInvariant, UsageError

Phase = Literal["machine", "node", "cloud"]
PHASES: tuple[Phase, ...] = ("machine", "node", "cloud")
OnTick = Callable[[int], Awaitable[None]]
SECOND = 1_000_000
"""µs"""


class Clock(Protocol):
    """Plant time, µs since 1970 UTC."""

    def now(self) -> int:
        """The plant time."""
        ...

    async def drive(self, on_tick: OnTick, *, phase: Phase, every_s: float = 1.0) -> None:
        """Call `on_tick(now)` for ever: each tick of the lock step, or every `every_s` by the wall."""
        ...


class WallClock:
    """Real time."""

    def now(self) -> int:
        return time.time_ns() // 1000

    async def drive(self, on_tick: OnTick, *, phase: Phase, every_s: float = 1.0) -> None:
        """Call `on_tick` every `every_s`; a late call shifts the next, none is made up for."""
        while True:
            await on_tick(self.now())
            await asyncio.sleep(every_s)


class LockStepClock:
    """Time as the clock service says it. Before the first tick it is `start`."""

    def __init__(self, host: str, port: int, *, name: str, start: int = 0) -> None:
        self.host, self.port, self.name = host, port, name
        self._now = start
        self.started = asyncio.Event()

    def now(self) -> int:
        return self._now

    async def drive(self, on_tick: OnTick, *, phase: Phase, every_s: float = 1.0) -> None:
        """Take part in the lock step until the service ends it; BrokenInvariant when it is lost."""
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError as error:
            raise UsageError(f"no clock service at {self.host}:{self.port} ({error}); is the demo running?") from None
        try:
            writer.write(json.dumps({"name": self.name, "phase": phase}).encode() + b"\n")
            while line := await reader.readline():
                self._now = int(json.loads(line)["now"])
                self.started.set()
                await on_tick(self._now)
                writer.write(b'{"done": %d}\n' % self._now)
                await writer.drain()
        except (ConnectionError, ValueError) as error:
            raise BrokenInvariant(f"the clock service at {self.host}:{self.port} broke off ({error})") from None
        finally:
            writer.close()
        raise BrokenInvariant(f"the clock service at {self.host}:{self.port} ended")


def clock_from(address: str | None, *, name: str) -> WallClock | LockStepClock:
    """The wall clock, or the lock step served at `host:port`."""
    if not address:
        return WallClock()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"clock={address!r}: give host:port of a clock service, or leave it out for real time")
    return LockStepClock(host, int(port), name=name)


class _Member:
    def __init__(self, name: str, phase: Phase, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name, self.phase, self.reader, self.writer = name, phase, reader, writer


class ClockService:
    """Says the time to every member and waits for each answer.

    async with ClockService(start=…) as service:
        await service.gather({"sim", "forming", …}, timeout_s=20)
        await service.step(to=service.now + 60 * SECOND)
    """

    def __init__(self, *, start: int, host: str = "127.0.0.1", port: int = 0, patience_s: float = 60.0) -> None:
        self.now, self.host, self.port, self.patience_s = start, host, port, patience_s
        self._members: dict[str, _Member] = {}
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()
        self.put_out: list[str] = []

    @property
    def members(self) -> frozenset[str]:
        """Names of those who take part now."""
        return frozenset(self._members)

    async def __aenter__(self) -> ClockService:
        self._server = await asyncio.start_server(self._join, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for member in self._members.values():
            member.writer.close()

    async def gather(self, names: set[str], *, timeout_s: float) -> None:
        """Wait until all of `names` take part; TimeoutError names nobody, ask `members`."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: names <= set(self._members))

    async def step(self, *, to: int) -> None:
        """Advance to `to`: each phase in order, all its members side by side."""
        if to < self.now:
            raise UsageError("plant time does not run backwards")
        self.now = to
        for phase in PHASES:
            members = [member for member in self._members.values() if member.phase == phase]
            await asyncio.gather(*(self._tell(member) for member in members))

    async def _tell(self, member: _Member) -> None:
        try:
            member.writer.write(b'{"now": %d}\n' % self.now)
            async with asyncio.timeout(self.patience_s):
                await member.writer.drain()
                answer = await member.reader.readline()
            if not answer or int(json.loads(answer)["done"]) != self.now:
                self._leave(member)
        except TimeoutError:
            self.put_out.append(member.name)
            self._leave(member)
        except (ConnectionError, ValueError, KeyError, TypeError):
            self._leave(member)

    def _leave(self, member: _Member) -> None:
        if self._members.get(member.name) is member:
            del self._members[member.name]
        member.writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ValueError, KeyError, TypeError, ConnectionError, TimeoutError):
            async with asyncio.timeout(5):
                hello = json.loads(await reader.readline())
            name, phase = str(hello["name"]), hello["phase"]
            if phase in PHASES:
                async with self._changed:
                    old = self._members.pop(name, None)
                    if old:
                        old.writer.close()
                    self._members[name] = _Member(name, phase, reader, writer)
                    self._changed.notify_all()
                return
        writer.close()

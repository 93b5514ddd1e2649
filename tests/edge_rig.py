"""What the edge tests share: an edge process, a device that keeps its bursts, and a store that tells what it has."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from messages.bus import Bus, Received
from messages.contracts import Action, Batch, Burst, Evicted, Gap, MachineEvent, Record, Rejected, StoredThrough, Taken
from messages.errors import BusLost
from messages.routes import ACTION, BATCH, BURST, STORED, TAKEN

SITE, NODE, DEVICE = "ceramic", "firing", "firing-1"
PLANT = Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml"
T0 = 1_750_000_000_000_000
SECOND = 1_000_000

Row = tuple[str, str, int]
"""Device, metric, time."""


def node_process(folder: Path) -> subprocess.Popen[bytes]:
    """A real node, by the settings in `node.toml` of that folder; what it says goes to `log` there."""
    script = (
        "import sys; from pathlib import Path;"
        "from edge.service import run; from edge.settings import EdgeSettings;"
        "from messages.process import run_until_stopped; from messages.settings import load;"
        "raise SystemExit(run_until_stopped(run(load(EdgeSettings, Path(sys.argv[1])))))"
    )
    with (folder / "log").open("ab") as out:
        words = [sys.executable, "-c", script, str(folder / "node.toml")]
        return subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)


class EdgeProcess:
    """A real edge node in its own process, as `shoal edge` runs it."""

    def __init__(self, folder: Path, port: int, *, uplink_port: int | None = None, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        lines = [f'site = "{SITE}"', f'node = "{NODE}"', f'plant = "{PLANT}"', f'data = "{self.data}"']
        defaults: dict[str, Any] = {"resend_first_s": 0.3, "resend_most_s": 1.0, "gap_grace_s": 0.2, "health_s": 0.2}
        lines += [f"{key} = {value!r}" for key, value in {**defaults, **settings}.items()]
        lines += ["[local]", f"port = {port}"]
        if uplink_port is not None:
            lines += ["[uplink]", f"port = {uplink_port}"]
        (folder / "node.toml").write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> EdgeProcess:
        self.process = node_process(self.folder)
        return self

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"it had ended by itself: {self.said()}"
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """It hears nothing more: what is sent to it from now on waits at the broker for whoever has its name next."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def __enter__(self) -> EdgeProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Machine:
    """Cooperative firmware: bursts are kept and sent again until they are taken."""

    def __init__(self, port: int, *, device: str = DEVICE, boot: str = "b001b001", again_s: float = 0.3) -> None:
        self.device, self.boot, self.again_s = device, boot, again_s
        self.bus = Bus("127.0.0.1", port, client_id=f"machine-{device}", backoff_s=(0.05, 0.2))
        self.bus.on(TAKEN, self._on_taken, site=SITE, node=NODE, device=device)
        self.bus.on(ACTION, self._on_action, site=SITE, node=NODE, device=device)
        self.held: dict[int, Burst] = {}
        self.spoilt: dict[int, bytes] = {}
        """Bytes this firmware sends for a burst in place of sound ones."""
        self.actions: list[Action] = []
        self.produced: list[Row] = []
        self.seq = 0
        self.readings = 0

    def make(self, samples: int = 5, *, events: list[MachineEvent] | None = None, keep: bool = True) -> Burst:
        """The next burst: a smooth temperature and power."""
        t0 = T0 + self.seq * 10 * SECOND
        burst = Burst(
            boot=self.boot,
            seq=self.seq,
            floor=min(self.held, default=self.seq),
            first=self.readings,
            t0=t0,
            at=[n * SECOND for n in range(samples)],
            columns={
                "power_kw": [100 + (self.seq * 7 + n) % 5 * 0.25 for n in range(samples)],
                "temperature_degc": [200 + (self.seq * samples + n) * 0.001 for n in range(samples)],
            },
            units={"power_kw": "kW", "temperature_degc": "degC"},
            events=events or [],
        )
        self.seq += 1
        self.readings += burst.readings
        self.produced += [(self.device, metric, t0 + at) for metric in burst.columns for at in burst.at]
        if keep:
            self.held[burst.seq] = burst
        return burst

    def send(self, burst: Burst) -> None:
        try:
            payload = self.spoilt.get(burst.seq) or burst.encode()
            answer = self.bus.publish_nowait(BURST, payload=payload, site=SITE, node=NODE, device=self.device)
            answer.add_done_callback(_ignore)
        except BusLost:
            return

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tg:
            tg.create_task(self.bus.run())
            while True:
                await asyncio.sleep(self.again_s)
                for burst in list(self.held.values()):
                    self.send(burst)

    async def _on_taken(self, received: Received) -> None:
        taken: Taken = received.message
        if taken.boot == self.boot:
            for low, high in taken.ranges:
                for seq in range(low, high + 1):
                    self.held.pop(seq, None)

    async def _on_action(self, received: Received) -> None:
        self.actions.append(received.message)


class Store:
    """A tiny ingest: keeps batches, then says so, as the contracts demand. `silent` keeps, `deaf` loses."""

    def __init__(self, port: int) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="store", backoff_s=(0.05, 0.2))
        self.bus.on(BATCH, self._on_batches, batch=True, site=SITE, node=NODE)
        self.bus.on_connect(self._say)
        self.batches: dict[tuple[str, str, int], Batch] = {}
        self.digests: dict[tuple[str, str, int], bytes] = {}
        self.arrived: list[tuple[str, str, int]] = []
        self.forks: list[tuple[str, str, int]] = []
        self.floors: Counter[tuple[str, str]] = Counter()
        self.silent = False
        self.deaf = False
        self.revision = 0

    async def run(self) -> None:
        await self.bus.run()

    async def speak(self) -> None:
        self.silent = self.deaf = False
        await self._say()

    async def _on_batches(self, received: list[Received]) -> None:
        for one in received:
            batch: Batch = one.message
            key = (batch.epoch, batch.lane, batch.seq)
            assert one.ids["lane"] == batch.lane
            self.arrived.append(key)
            if self.deaf:
                continue
            digest = hashlib.sha256(one.payload).digest()
            if self.digests.setdefault(key, digest) != digest:
                self.forks.append(key)
            self.batches[key] = batch
            self.floors[key[:2]] = max(self.floors[key[:2]], batch.floor)
        await self._say()

    async def _say(self) -> None:
        if self.silent or self.deaf:
            return
        self.revision += 1
        settled = set(self.batches) | {
            (one.epoch, one.lane, seq)
            for one in self.records(Evicted)
            for low, high in one.ranges
            for seq in range(low, high + 1)
        }
        epochs: dict[str, dict[str, Any]] = {}
        for epoch, lane in {key[:2] for key in self.batches}:
            seqs = {key[2] for key in settled if key[:2] == (epoch, lane)}
            through = self.floors[epoch, lane] - 1
            while through + 1 in seqs:
                through += 1
            ranges: list[list[int]] = []
            for seq in sorted(seq for seq in seqs if seq > through):
                if ranges and ranges[-1][1] + 1 == seq:
                    ranges[-1][1] = seq
                else:
                    ranges.append([seq, seq])
            epochs.setdefault(epoch, {})[lane] = {"through": through, "ranges": ranges[:32]}
        message = StoredThrough.model_validate({"revision": self.revision, "epochs": epochs})
        try:
            self.bus.publish_nowait(STORED, message, site=SITE, node=NODE).add_done_callback(_ignore)
        except BusLost:
            return

    def records(self, kind: type[Record]) -> list[Any]:
        return [one for batch in list(self.batches.values()) for one in batch.records if isinstance(one, kind)]

    def rows(self, epoch: str | None = None) -> Counter[Row]:
        """How often each reading is stored; `epoch`: from the node's disk of this epoch alone."""
        return Counter(
            (one.device, one.metric, one.t0 + at)
            for batch in list(self.batches.values())
            if epoch in (None, batch.epoch)
            for one in batch.series
            for at in one.at
        )

    def by_epoch(self) -> list[Counter[Row]]:
        """The same for each process that numbered batches with readings, in the order of their first batch here."""
        epochs = dict.fromkeys(epoch for epoch, _, _ in list(self.batches))
        return [rows for epoch in epochs if (rows := self.rows(epoch))]

    def counted(self) -> int:
        """Readings stored, rejected, or counted as gaps or evicted."""
        return (
            sum(self.rows().values())
            + sum(one.readings for one in self.records(Rejected))
            + sum(one.readings for one in self.records(Gap))
            + sum(one.readings for one in self.records(Evicted))
        )


def _ignore(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()

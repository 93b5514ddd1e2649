"""A site of simulated devices for the benchmarks: one process, one MQTT connection, noisy floats with faults.

    python benchmarks/_site.py --port 1883 --rate 800000 --seconds 60     # rate 0: as fast as `Taken` allows

Every device keeps a burst until it is `Taken` and has at most `--credit` bursts out, as cooperative firmware does.
Values are full doubles (level + noise); some are missing, some are spikes, some bursts are sent twice. The last line
is a JSON object of what was produced. With `--plain` nothing is kept and nobody is waited for beyond PUBACK.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time
from collections.abc import Iterator

import numpy as np
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTProtocolVersion
from pydantic_core import from_json, to_json

SITE, NODE = "bench", "node"
METRICS = {"power_kw": "kW", "temperature_degc": "degC", "energy_kwh": "kWh", "state": "code"}
LEVEL = np.array([[[100.0], [30.0], [0.0], [3.0]]])
NOISE = np.array([[[1.0], [0.04], [0.0], [0.0]]])
"""As the plant file states it for a machine of 100 kW."""
MISSING, SPIKES, TWICE = 0.002, 0.002, 0.001
"""Shares of cells that are null or far off, and of bursts that are sent again at once."""
AGAIN_S = 3.0
"""A burst not `Taken` for so long is sent again."""
ROUND = 64
"""Bursts whose noise is drawn at once."""


def device(n: int) -> str:
    """Name of device `n`."""
    return f"m{n:03}"


class Site:
    """Bursts of all devices in turn."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rng = np.random.default_rng(args.seed)
        self.seqs = [0] * args.devices
        self.held: dict[tuple[int, int], tuple[bytes, float]] = {}
        self.out = [0] * args.devices
        self.last = [time.time_ns() // 1000 - 1_000_000] * args.devices
        self.readings = self.repeats = self.answered = self.sent = 0
        self.spare: list[np.ndarray] = []
        self.names = {device(n): n for n in range(args.devices)}
        self.client = client = Client(
            CallbackAPIVersion.VERSION2, client_id="site", protocol=MQTTProtocolVersion.MQTTv5
        )
        client.max_inflight_messages_set(0)
        client.on_message = self._on_message
        client.on_publish = lambda *_: setattr(self, "answered", self.answered + 1)

    def connect(self) -> None:
        self.client.connect("127.0.0.1", self.args.port, keepalive=60)
        sock = self.client.socket()
        assert sock is not None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pump(0.5)
        if not self.args.plain:
            self.client.subscribe(f"shoal/v1/{SITE}/{NODE}/act/+/taken", qos=1)
        self.pump(0.5)

    def pump(self, wait_s: float) -> None:
        """Hear and say what is due, for `wait_s` at most when there is nothing."""
        until = time.monotonic() + wait_s
        while True:
            sock = self.client.socket()
            assert sock is not None, "the broker went away"
            left = max(0.0, until - time.monotonic())
            readable, writable, _ = select.select([sock], [sock] if self.client.want_write() else [], [], left)
            if readable:
                self.client.loop_read()
            if writable:
                self.client.loop_write()
            if not readable and (not writable or time.monotonic() > until):
                return

    def payload(self, n: int) -> bytes:
        """The next burst of device `n`: its last sample is taken now."""
        args, seq = self.args, self.seqs[n]
        self.seqs[n] += 1
        values = self._values()
        now = time.time_ns() // 1000
        step = max(1, (now - self.last[n]) // args.samples)  # what was sampled since the last burst
        self.last[n] = now
        return to_json(
            {
                "boot": f"{n:08x}",
                "seq": seq,
                "floor": min((old for old in range(seq - 2 * args.credit, seq) if (n, old) in self.held), default=seq),
                "first": seq * args.samples * args.metrics,
                "t0": now - step * (args.samples - 1),
                "at": list(range(0, step * args.samples, step)),
                "columns": dict(zip(METRICS, values.tolist(), strict=False)),
                "units": dict(list(METRICS.items())[: args.metrics]),
            },
            inf_nan_mode="null",
        )

    def _values(self) -> np.ndarray:
        if not self.spare:
            args = self.args
            shape = (ROUND, args.metrics, args.samples)
            values = LEVEL[:, : args.metrics] + self.rng.standard_normal(shape) * NOISE[:, : args.metrics]
            if args.metrics > 2:  # a counter rises
                values[:, 2] = time.time() % 1e6 + np.cumsum(np.abs(values[:, 0]), axis=1) * 1e-9
            fate = self.rng.random(shape)
            values[fate < MISSING] = np.nan  # JSON: null
            far = fate > 1 - SPIKES
            far[:, 2:] = False
            values[far] *= 1.5
            self.spare = list(values)
        return self.spare.pop()

    def send(self, n: int) -> None:
        payload = self.payload(n)
        seq = self.seqs[n] - 1
        cells = self.args.samples * self.args.metrics
        self.readings += cells
        self._publish(n, payload)
        if not self.args.plain:
            self.held[n, seq] = (payload, time.monotonic())
            self.out[n] += 1
        if self.rng.random() < TWICE and not self.args.plain:
            self._publish(n, payload)
            self.repeats += 1

    def _publish(self, n: int, payload: bytes) -> None:
        self.sent += 1
        self.client.publish(f"shoal/v1/{SITE}/{NODE}/raw/{device(n)}", payload, qos=1)

    def again(self) -> None:
        now = time.monotonic()
        for key, (payload, since) in list(self.held.items()):
            if now - since > AGAIN_S:
                self.held[key] = (payload, now)
                self._publish(key[0], payload)
                self.repeats += 1

    def _on_message(self, _c: Client, _u: object, message: MQTTMessage) -> None:
        n = self.names[message.topic.split("/")[5]]
        for low, high in from_json(message.payload)["ranges"]:
            for seq in range(low, high + 1):
                if self.held.pop((n, seq), None):
                    self.out[n] -= 1

    def turns(self) -> Iterator[int]:
        while True:
            yield from range(self.args.devices)

    def run(self) -> None:
        args = self.args
        cells = args.samples * args.metrics
        turns = self.turns()
        began = last_again = time.monotonic()
        skipped = 0
        while (now := time.monotonic()) < began + args.seconds:
            if now - last_again > 0.5:
                last_again = now
                self.again()
            due = (now - began) * args.rate / cells if args.rate else float("inf")
            done = self.readings / cells
            if done >= due:
                self.pump(min(0.01, (done + 1 - due) * cells / args.rate))
                continue
            if args.plain and self.sent - self.answered > args.credit * args.devices:
                self.pump(0.005)
                continue
            n = next(turns)
            if self.out[n] >= args.credit:
                skipped += 1
                if skipped >= args.devices:
                    skipped = 0
                    self.pump(0.002)
                continue
            skipped = 0
            self.send(n)
            self.pump(0)
        took = time.monotonic() - began
        out = len(self.held)
        until = time.monotonic() + args.drain_s
        while (self.held or self.sent > self.answered) and time.monotonic() < until:
            self.pump(0.1)
            self.again()
        report = {"readings": self.readings, "began": began, "took_s": took, "bursts": sum(self.seqs)}
        report |= {"repeats": self.repeats, "out_at_end": out, "not_taken": len(self.held)}
        print(json.dumps(report), flush=True)
        self.client.disconnect()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=250)
    parser.add_argument("--metrics", type=int, default=4)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.0, help="readings/s; 0: as fast as may be")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--drain-s", type=float, default=30.0, help="wait for the last `Taken` so long")
    parser.add_argument("--credit", type=int, default=2, help="bursts a device may have out")
    parser.add_argument("--plain", action="store_true", help="nobody says Taken")
    parser.add_argument("--seed", type=int, default=1)
    site = Site(parser.parse_args())
    site.connect()
    site.run()


if __name__ == "__main__":
    main()

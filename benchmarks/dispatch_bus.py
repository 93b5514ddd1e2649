"""Negotiations over a real Mosquitto: 10, 100 and 1,000 machine agents, one judge.

    python benchmarks/dispatch_bus.py [--quick]

Ten machines per node; every node a connection of its own with the real executor and bidding, its state encoded after
every message but not written (`_negotiators.py`; nodes share a few processes); the judge in its own process with the
real book, the real agent and the rule `fifo`, broker without persistence (`_negotiations.py`). Every task can be done
by all machines of three nodes (of the one node there is, with ten machines); `_all_able`: by every machine there is.
Work ends as it begins, so that negotiating is all there is to do; no records are written to a store.

A message is one that a client published: offers, bids, awards, acknowledgements, agendas, and the clearing of the award
when the work is done. Saturated: ten tasks are in negotiation all the time, and CPU time is counted; an award then
waits for nine others. Paced: ten tasks a second, what 600 machines with work of a minute ask for; the milliseconds are
those from sending the first offer to the node's acknowledgement of the award, in the judge's process. All processes
share the cores of one computer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from messages.broker import Broker  # noqa: E402

MACHINES = 10
"""Per node."""
ABLE = 3
"""Nodes whose machines can do a task."""
OPEN = 10
RATE = 10.0
KINDS = ("offer", "bid", "award", "ack", "agenda", "clear")
HOSTS = 3
"""Processes that nodes share, at most."""


def figures(quick: bool) -> Iterator[dict[str, Any]]:
    """One dictionary per figure."""
    few = {nodes: _case(nodes, min(ABLE, nodes), quick) for nodes in ((1, 10) if quick else (1, 10, 100))}
    for nodes, found in few.items():
        yield from _of_case(f"{MACHINES * nodes}_machines", found)
    if len(few) > 1:
        yield from _growth(few)
    for nodes in (10,) if quick else (10, 100):
        yield from _of_case(f"{MACHINES * nodes}_machines_all_able", _case(nodes, nodes, quick))


def _of_case(name: str, found: tuple[dict[str, Any], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    full, paced = found
    awards = max(1, full["awards"])
    yield {
        "figure": f"bus_awards_{name}",
        "value": round(awards / full["seconds"], 1),
        "unit": "1/s",
        "target": "stated",
        "holds": True,
        "note": f"saturated: {OPEN} tasks in negotiation all the time; {_latency(full)}",
    }
    counts = {kind: full["messages"].get(kind, 0) / awards for kind in KINDS}
    kilobytes = {kind: full["bytes"].get(kind, 0) / awards / 1000 for kind in KINDS}
    yield {
        "figure": f"bus_messages_per_award_{name}",
        "value": round(sum(counts.values()), 2),
        "unit": "messages",
        "target": "stated",
        "holds": True,
        "note": ", ".join(f"{kind} {count:.2f}" for kind, count in counts.items()),
    }
    yield {
        "figure": f"bus_kilobytes_per_award_{name}",
        "value": round(sum(kilobytes.values()), 2),
        "unit": "kB",
        "target": "stated",
        "holds": True,
        "note": ", ".join(f"{kind} {size:.2f}" for kind, size in kilobytes.items() if size),
    }
    judge, broker, *nodes = (1000 * one / awards for one in full["cpu_s"])
    agent = 1000 * full["agent_cpu_s"] / awards
    yield {
        "figure": f"bus_cpu_per_award_{name}",
        "value": round(judge + broker + sum(nodes), 2),
        "unit": "ms",
        "target": "stated",
        "holds": True,
        "note": f"judge {judge:.2f} (of it deciding {agent:.2f}), all nodes {sum(nodes):.2f}, broker {broker:.2f}",
    }
    yield {
        "figure": f"bus_offer_to_acknowledged_p99_{name}",
        "value": round(_percentile(paced["took_ms"], 99), 1),
        "unit": "ms",
        "target": "stated",
        "holds": True,
        "note": f"paced: {RATE:g} tasks a second; {_latency(paced)}",
    }


def _growth(few: dict[int, tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Exponents of the number of machines, from the smallest site in which three nodes are able to the greatest."""
    low, high = 10 if len(few) > 2 else 1, max(few)

    def exponent(of: Any) -> float:
        return math.log(of(few[high]) / of(few[low])) / math.log(high / low)

    def cpu(found: Any) -> float:
        return float(sum(found[0]["cpu_s"]) / found[0]["awards"])

    def messages(found: Any) -> float:
        return float(sum(found[0]["messages"].values()) / found[0]["awards"])

    def p50(found: Any) -> float:
        return _percentile(found[1]["took_ms"], 50)

    for name, of in (("cpu_per_award", cpu), ("messages_per_award", messages), ("p50", p50)):
        yield {
            "figure": f"bus_growth_{name}",
            "value": round(exponent(of), 2),
            "unit": "exponent",
            "target": "stated",
            "holds": True,
            "note": f"of the number of machines, from {MACHINES * low} to {MACHINES * high}; "
            f"{of(few[low]):.4g} and {of(few[high]):.4g}" + (" s" if of is cpu else ""),
        }


def _case(nodes: int, able: int, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Saturated and paced, each with a fresh broker and fresh nodes."""
    full_s, paced_s = (4, 4) if quick else (15, 40)
    full = _measure(nodes, able, ["--open", str(OPEN), "--seconds", str(full_s)])
    return full, _measure(nodes, able, ["--rate", str(RATE), "--seconds", str(paced_s)])


def _measure(nodes: int, able: int, load: list[str]) -> dict[str, Any]:
    with Broker(persistence=False) as broker:
        site = ["--port", str(broker.port), "--nodes", str(nodes), "--able", str(able)]
        with _hosts(site, nodes) as pids:
            watched = ",".join(str(pid) for pid in (broker.pid, *pids))
            judge = [sys.executable, str(REPO / "benchmarks/_negotiations.py"), *site, "--pids", watched, *load]
            done = subprocess.run(judge, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def _hosts(site: list[str], nodes: int) -> Iterator[list[int]]:
    count = min(HOSTS, nodes, max(1, os.cpu_count() or 1))
    hosts = []
    try:
        for n in range(count):
            share = ["--first", str(nodes * n // count), "--last", str(nodes * (n + 1) // count)]
            program = [sys.executable, str(REPO / "benchmarks/_negotiators.py"), *site, *share]
            hosts.append(subprocess.Popen(program))
        yield [one.pid for one in hosts]
    finally:
        for one in hosts:
            one.terminate()
        for one in hosts:
            one.wait()


def _latency(found: dict[str, Any]) -> str:
    took = found["took_ms"]
    p50, p99 = _percentile(took, 50), _percentile(took, 99)
    return f"offer to acknowledged p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(took)}"


def _percentile(values: list[float], share: float) -> float:
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, int(len(values) * share / 100))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: 10 and 100 machines, 4 s each")
    for line in figures(parser.parse_args().quick):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""Hostile ONNX files on a node, in a process that is watched: which are taken, what is opened, how much memory goes?

    python benchmarks/_release_graphs.py FOLDER KEY     # one line of JSON; KEY: who may release

The folder has graphs (`k.onnx`), and beside each its signed release (`k.json`), unless it is too large or empty to be
named by one; the last pair is sound. Each graph is looked at alone, and comes as a release, from the signed document to
the last part, to a node that keeps its files in memory: so any file that is opened, any folder that is listed, any
module, socket or process is the graph's doing. The interpreter itself reports them (PEP 578). Two peaks of memory: what
Python allocates beyond the file's own bytes, and what the process grew by at most, a release's parts included.
"""

from __future__ import annotations

import json
import resource
import sys
import tracemalloc
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO)]

from edge.files import Files  # noqa: E402
from edge.graphs import checked  # noqa: E402
from edge.models import Models  # noqa: E402
from edge.shelf import Shelf  # noqa: E402
from messages.errors import BadMessage  # noqa: E402
from messages.learning import PART_BYTES, Artefact  # noqa: E402
from messages.signing import public_key  # noqa: E402

EVENTS = {"open", "os.listdir", "os.scandir", "os.mkdir", "import", "socket.connect", "subprocess.Popen", "os.system"}
NOW = 1_000_000


class Memory(Files):
    """A folder that is none."""

    def __init__(self) -> None:
        super().__init__(Path("memory"))
        self.kept: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        self.kept[name] = data

    def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def names(self) -> list[str]:
        return sorted(self.kept)

    def remove(self, name: str) -> None:
        self.kept.pop(name, None)


def looked_at(folder: Path, key: str) -> dict[str, Any]:
    """What became of every graph but the last, which must run."""
    graphs = [path.read_bytes() for path in sorted(folder.glob("*.onnx"))]
    documents = [path.read_bytes() for path in sorted(folder.glob("*.json"))]
    models = Models(Shelf(Memory()), targets={"s1/press"}, keys={"cloud": public_key(key)}, session="00000000")
    models.report("cell", NOW)  # the first one imports
    seen: list[str] = []
    sys.addaudithook(lambda event, _: seen.append(event) if event in EVENTS else None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    alone = [_alone(graph) for graph in graphs[:-1]]
    came = [_came(models, *one) for one in zip(documents[:-1], graphs[:-1], strict=True) if one[0]]
    opened, runtime = len(seen), "onnxruntime" in sys.modules
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sound = _came(models, documents[-1], graphs[-1])
    peaks = [_peak(graph) for graph in graphs[:-1]]
    return {
        "files": len(graphs) - 1,
        "alone_refused": sum(alone),
        "released": len(came),
        "release_refused": sum(came),
        "opened": opened,
        "runtime_asked": runtime,
        "sound_runs": not sound,
        "sound_opened": len(seen) - opened,
        "peak_kb": max(peaks) / 1024,
        "grown_kb": grown,
        "largest_kb": max(map(len, graphs)) / 1024,
    }


def _alone(graph: bytes) -> bool:
    try:
        checked(graph, inputs=3, parameters=0, outputs=2)
    except BadMessage:
        return True
    return False


def _came(models: Models, document: bytes, graph: bytes) -> bool:
    """Whether it was refused."""
    reports = models.on_release("cell", document, NOW)
    artefact = Artefact.of(graph)
    for part in range(artefact.parts):
        data = graph[part * PART_BYTES : (part + 1) * PART_BYTES]
        reports += models.on_part(artefact.digest, part, data, NOW)
    return bool(reports[-1].refused) and reports[-1].running is None


def _peak(graph: bytes) -> int:
    tracemalloc.start()
    try:
        _alone(graph)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    print(json.dumps(looked_at(Path(sys.argv[1]), sys.argv[2])))

"""The ground truth: per burst what was sent, what was really so, and which fault touched which cell.

One JSON object per line, appended before the burst goes out, so that nothing can be stored that is not here:

    {"device": "firing-1", "node": "firing", "skew_us": 0, "copies": 1, "late": false,
     "true": {"power_kw": [330.0, …], …},            noise-free values in canonical units, sample by sample as sent
     "faults": {"power_kw": {"spike": [3]}},         metric → kind → places in the columns of `sent`
     "order": {"duplicate": [4]},                    samples repeated (this place is the repeat) or moved
     "sent": {…}}                                    the Burst, byte by byte

`skew_us` is what the device's clock is ahead: true time = t0 + at − skew_us. `copies` 2: the burst was sent
twice on purpose; `late`: it was sent after its successor. About 1.5 kB per burst of ten samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from messages.contracts import Burst
from messages.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TrueBurst:
    """One line of a truth file."""

    device: str
    node: str
    burst: Burst
    true: dict[str, list[float]]
    faults: dict[str, dict[str, list[int]]]
    order: dict[str, list[int]]
    skew_us: int
    copies: int
    late: bool


class TruthFile:
    """Appends lines; beyond `max_bytes` nothing more is written and `complete` turns False."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes
        self.complete = True
        self._size = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        except OSError as error:
            raise ConfigError(f"truth={str(self.path)!r}: cannot be written ({error}); choose another file") from None
        self._size = self._file.tell()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file:
            self._file.close()

    def write(
        self,
        *,
        device: str,
        node: str,
        payload: bytes,
        true: dict[str, list[float]],
        faults: dict[str, dict[str, list[int]]],
        order: dict[str, list[int]],
        skew_us: int,
        copies: int,
        late: bool,
    ) -> None:
        """Append one burst; it is in the file after the next `flush`."""
        head = {
            "device": device,
            "node": node,
            "skew_us": skew_us,
            "copies": copies,
            "late": late,
            "true": true,
            "faults": faults,
            "order": order,
        }
        # The burst is encoded already: its bytes go in as they are.
        line = json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"sent":' + payload + b"}\n"
        if self._file is None or self._size + len(line) > self.max_bytes:
            self.complete = False
            return
        self._size += self._file.write(line)

    def flush(self) -> None:
        """Hand it to the operating system."""
        if self._file:
            self._file.flush()


def read_truth(path: Path) -> Iterator[TrueBurst]:
    """The bursts of a truth file, in the order in which the devices cut them. A half-written last line is left out."""
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            found = json.loads(line)
            found["burst"] = Burst.model_validate(found.pop("sent"))
            yield TrueBurst(**found)

"""What disturbs a swarm: breakdowns, rush orders, cancelled ones, nodes and judges that die, messages that go astray.

    scenario = parse("breakdown:2,node,lose:0.1", plant, jobs, span_s=4000, seed=1)
    scenario = load_scenario(Path("bad_day.toml"), plant, jobs)

A scenario is a list of happenings with their times and the rates at which messages go astray; either comes from a
file, or is drawn from a seed. The same seed gives the same scenario. Bounds: `MAX_HAPPENINGS` per scenario.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Iterable, Sequence, Sized
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from messages.clock import SECOND
from messages.contracts import External, Id, OrderedJob
from messages.errors import UsageError
from messages.plant import MAX_FILE_BYTES, Plant, near
from shoal.swarm.complaint import complaint

MAX_HAPPENINGS = 1_000

Kind = Literal["breakdown", "rush", "cancel", "node", "judge", "rival", "cloud"]

ABOUT = {
    "breakdown": "a machine breaks and returns when it is repaired",
    "rush": "an order comes in between, due soon",
    "cancel": "an order is cancelled, whatever has become of it",
    "node": "a node crashes and comes back with what is on its disk",
    "judge": "the judge crashes and a new one begins with what is on its disk",
    "rival": "a second judge begins beside the first",
    "cloud": "the cloud is cut off; nodes go on, and delegates judge",
    "lose": "share of messages that are lost",
    "double": "share of messages that come twice",
    "delay": "greatest delay of a message, s",
    "reorder": "share of messages that are overtaken by later ones",
}
"""Every word of --disturb and what it does."""
WIRE = {"lose": 0.1, "double": 0.1, "delay": 2.0, "reorder": 0.1}
"""What goes wrong with messages, and how much where no number is given."""
STORM = {"breakdown": 2, "rush": 1, "cancel": 1, "node": 2, "judge": 1, "rival": 1, "cloud": 1} | WIRE
SIMULATED = (*WIRE, "rival")
"""What only happens in simulation: over a broker a storm is the rest, and who asks for these is refused."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Seconds = Annotated[float, Field(ge=0, le=1e9)]


class Happening(_Strict):
    """One disturbance."""

    kind: Kind
    at_s: Seconds = Field(description="seconds after the begin of plant time")
    lasts_s: Seconds = Field(0.0, description="repair, down time or cut; of a rush order: until it is due")
    machine: Id | None = Field(None, description="of a breakdown")
    node: Id | None = Field(None, description="of a crash")
    job: External | None = Field(None, description="to be cancelled; name of a rush order")
    product: External | None = Field(None, description="of a rush order; absent: the job's name is its product")

    @property
    def at_us(self) -> int:
        """µs after the begin."""
        return round(self.at_s * SECOND)

    @property
    def lasts_us(self) -> int:
        """µs."""
        return round(self.lasts_s * SECOND)

    @property
    def what(self) -> str:
        """Whom it concerns, in words."""
        named = self.machine or self.node or self.job or ""
        lasts = f" for {self.lasts_s:g} s" if self.lasts_s and self.kind != "rush" else ""
        return f"{named}{lasts}".strip()


class Scenario(_Strict):
    """Happenings in order of time, and how messages fare."""

    happenings: tuple[Happening, ...] = Field((), max_length=MAX_HAPPENINGS)
    lose: float = Field(0.0, ge=0, lt=1, description=ABOUT["lose"])
    double: float = Field(0.0, ge=0, lt=1, description=ABOUT["double"])
    delay: float = Field(0.0, ge=0, le=3600, description=ABOUT["delay"])
    reorder: float = Field(0.0, ge=0, lt=1, description=ABOUT["reorder"])

    @property
    def calm(self) -> bool:
        """Whether nothing is disturbed."""
        return not (self.happenings or self.lose or self.double or self.delay or self.reorder)


def parse(
    text: str, plant: Plant, jobs: Sequence[OrderedJob], *, span_s: float, seed: int, over: str = "sim"
) -> Scenario:
    """A comma list of kinds, each perhaps with `:number` (how many; of messages: the rate), `storm`, or a file.

    Times are drawn over `span_s`; UsageError names the cure. `over` a bus, a storm is what can happen there.
    """
    if not text:
        return Scenario()
    if Path(text).suffix in (".toml", ".json"):
        return load_scenario(Path(text), plant, jobs)
    wanted: dict[str, float] = {}
    named = set[str]()
    for word in text.split(","):
        name, colon, number = word.strip().partition(":")
        _check_word(name, text)
        if name in named:
            raise UsageError(f"--disturb {text}: {name} is there twice; name each kind once, with the number you want")
        named.add(name)
        if name == "storm":
            times = _number(number, word, whole=True) if colon else 1.0
            wanted |= {
                kind: _storm(kind, size, times)
                for kind, size in STORM.items()
                if over == "sim" or kind not in SIMULATED
            }
        else:
            wanted[name] = _number(number, word, whole=name not in WIRE) if colon else WIRE.get(name, 1.0)
    rates = {kind: rate for kind, rate in wanted.items() if kind in WIRE}
    counts = {kind: round(count) for kind, count in wanted.items() if kind not in WIRE}
    try:
        return Scenario(happenings=drawn(counts, plant, jobs, span_s=span_s, seed=seed), **rates)
    except ValidationError as error:
        raise UsageError(f"--disturb {text}: {_complaint(error)}") from None


def refuse_simulated(scenario: Scenario) -> None:
    """UsageError where a scenario has what only happens in simulation."""
    happen = {one.kind for one in scenario.happenings}
    found = [kind for kind in SIMULATED if kind in happen or (kind in WIRE and getattr(scenario, kind))]
    if found:
        raise UsageError(
            f"over a broker there is no {', no '.join(found)}: leave that out of --disturb, or use --over sim; there "
            f"are {', '.join(kind for kind in ABOUT if kind not in SIMULATED)}, and storm, which is all of them: what "
            "is killed there is killed for real, and messages are lost with it"
        )


def drawn(
    counts: dict[str, int], plant: Plant, jobs: Sequence[OrderedJob], *, span_s: float, seed: int
) -> tuple[Happening, ...]:
    """So many happenings of each kind, at random times within `span_s`."""
    if sum(counts.values()) > MAX_HAPPENINGS:
        raise UsageError(
            f"--disturb: {sum(counts.values())} happenings, and at most {MAX_HAPPENINGS} are carried out; give smaller "
            "numbers"
        )
    whom: dict[str, tuple[Sized, str]] = {
        "breakdown": (plant.machines, "machines"),
        "node": (plant.nodes, "nodes"),
        "rush": (plant.products, "products"),
        "cancel": (jobs, "orders"),
    }
    for kind, (there, words) in whom.items():
        if counts.get(kind) and not there:
            raise UsageError(f"--disturb {kind}: there are no {words}; leave {kind} (and storm) out, or add {words}")
    rng = random.Random(seed)
    known = {job.job for job in jobs}
    names = (name for number in count(1) if (name := f"rush-{number}") not in known)
    found = []
    for kind in ABOUT:
        for _ in range(counts.get(kind, 0)):
            found.append(_drawn(kind, next(names) if kind == "rush" else "", plant, jobs, span_s, rng))
    return _checked(found, plant, jobs, "--disturb")


def load_scenario(path: Path, plant: Plant, jobs: Sequence[OrderedJob]) -> Scenario:
    """A scenario of a file (TOML or JSON); UsageError names file, place and cure."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path}: larger than {MAX_FILE_BYTES} bytes; a scenario is not that long")
        text = path.read_text(encoding="utf-8")
        data: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        scenario = Scenario.model_validate(data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a scenario ({error.strerror or error}); name a file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no text in UTF-8; a scenario is a TOML or JSON file") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {_complaint(error)}") from None
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise UsageError(f"{path}: is no {kind} ({error}); correct it there") from None
    return scenario.model_copy(update={"happenings": _checked(scenario.happenings, plant, jobs, str(path))})


def _checked(
    happenings: Iterable[Happening], plant: Plant, jobs: Sequence[OrderedJob], where: str
) -> tuple[Happening, ...]:
    """In order of time; UsageError where one cannot befall this plant and these orders."""
    ordered = tuple(sorted(happenings, key=lambda one: one.at_s))
    known = {job.job for job in jobs}
    for one in ordered:
        _check(one, plant, known, where)
        known |= {one.job} if one.kind == "rush" and one.job else set()
    return ordered


def _drawn(
    kind: str, name: str, plant: Plant, jobs: Sequence[OrderedJob], span_s: float, rng: random.Random
) -> Happening:
    at_s = round(rng.uniform(0.05, 0.85) * span_s, 3)
    lasts_s = round(rng.uniform(0.02, 0.15) * span_s, 3)
    more: dict[str, Any] = {}
    if kind == "breakdown":
        more = {"machine": rng.choice(list(plant.machines))}
    elif kind == "node":
        more = {"node": rng.choice(plant.nodes)}
    elif kind == "rush":
        product = rng.choice(plant.products)
        more, lasts_s = {"job": name, "product": product}, round(span_s / 4, 3)
    elif kind == "cancel":
        more, lasts_s = {"job": rng.choice(jobs).job}, 0.0
    elif kind == "cloud":
        lasts_s = round(rng.uniform(0.1, 0.3) * span_s, 3)
    return Happening.model_validate({"kind": kind, "at_s": at_s, "lasts_s": lasts_s, **more})


def _check(one: Happening, plant: Plant, jobs: set[str], where: str) -> None:
    needs = {"breakdown": "machine", "node": "node", "cancel": "job", "rush": "job"}.get(one.kind)
    if needs and getattr(one, needs) is None:
        raise UsageError(f"{where}: a {one.kind} at {one.at_s:g} s needs `{needs}`")
    known = {"machine": list(plant.machines), "node": list(plant.nodes)}
    for field, names in known.items():
        value = getattr(one, field)
        if value is not None and value not in names:
            raise UsageError(f"{where}: plant {plant.site!r} has no {field} {value!r}{near(value, names)}")
    if one.kind == "cancel" and one.job not in jobs:
        raise UsageError(f"{where}: there is no order {one.job!r} to cancel{near(one.job or '', jobs)}")
    if one.kind == "rush":
        product = one.product or one.job
        if product not in plant.products:
            raise UsageError(f"{where}: no product {product!r}{near(product or '', plant.products)}")
        if one.job in jobs:
            raise UsageError(f"{where}: there is an order {one.job!r} already; a name is used once")


def _check_word(name: str, text: str) -> None:
    """A word of --disturb is a kind, or a storm."""
    if name in ABOUT or name == "storm":
        return
    if not name:
        raise UsageError(f"--disturb {text!r}: a word is missing; give kinds, as in breakdown:2,lose:0.1, or a file")
    if Path(name).suffix or "/" in name:
        raise UsageError(f"--disturb {text}: a scenario file is TOML or JSON, named .toml or .json, and stands alone")
    raise UsageError(f"--disturb {name!r}: no such disturbance{near(name.lower(), [*ABOUT, 'storm'])}")


def _complaint(error: ValidationError) -> str:
    return complaint(error, Scenario, kinds=get_args(Kind), most=MAX_HAPPENINGS)


def _storm(kind: str, size: float, times: float) -> float:
    """So many storms at once: each of them loses its share of what the others left."""
    if kind in WIRE and kind != "delay":
        return float(round(1 - (1 - size) ** times, 6))
    return times * size


def _number(text: str, word: str, *, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise UsageError(
            f"--disturb {word!r}: after the colon comes a number, 0 or more, as in breakdown:2 or lose:0.1"
        )
    if whole and value % 1:
        raise UsageError(f"--disturb {word!r}: so many of a kind; give a whole number, as in breakdown:2")
    return value

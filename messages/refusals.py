"""Why a file is no problem, for the person who wrote it: the place in their file, what is wrong there, the cure.

    refused(error, data)                                   # "jobs[2].operations[0].alternatives.kiln: -3 is less …"
    refused(error, document, stages=data, unit="h")        # "stages[0].machines[1].work_kw: 'many' is no number; …"

`error` is pydantic's about the document of a Problem. Of a stage file that document was made from something else, so
its places are led back: machine 9 of the problem to the machine of a stage, operation 2 of a job to stage 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

Place = Sequence[str | int]
Details = Mapping[str, Any]


def refused(error: ValidationError, document: Any, *, stages: Mapping[str, Any] | None = None, unit: str = "h") -> str:
    """Of several faults the first."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":  # of ours: it names the cure
        text = first["msg"].removeprefix("Value error, ")
    else:
        text = _said(first["type"], first.get("input"), first.get("ctx") or {}, first["msg"])
    loc = [part for part in first["loc"] if part != "[key]"]
    if stages is None:
        place, near = _shown(loc), _near(document, loc)
    else:
        place, near = _Stages(stages, document, unit).place(loc), _near(document, loc)
        if first["type"] == "value_error":
            text = _Stages(stages, document, unit).text(text)
    return f"{place}: {text}{near}" if place else text


def _said(kind: str, value: Any, ctx: Details, otherwise: str) -> str:
    """What is wrong, and the cure."""
    given = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else "this"
    least = f"{ctx.get('ge', ctx.get('gt', 0)):g}"
    most = f"{ctx.get('le', ctx.get('lt', 0)):g}"
    texts: dict[str, str] = {
        "missing": "is missing; add it",
        "int_from_float": f"{given} is off the grid; times here are whole ticks, choose a smaller tick_s",
        "greater_than_equal": f"{given} is less than {least}; give {least} or more",
        "greater_than": f"{given} is not more than {least}; give more",
        "less_than_equal": f"{given} is more than {most}; give {most} or less",
        "less_than": f"{given} is not less than {most}; give less",
        "literal_error": f"{given} is unknown; use {ctx.get('expected')}",
        "string_pattern_mismatch": f"{given} is no name here; small letters, digits and _ make one, a letter first",
        "too_long": "has too many entries; split it",
        "string_too_long": "is too long; shorten it",
        "string_too_short": "is empty; give it a name",
        "too_short": "is empty; give at least one entry, or drop what it belongs to",
        "finite_number": f"{given} is no finite number; write one",
    }
    if kind in texts:
        return texts[kind]
    for ends, text in (
        (("tuple_type", "list_type"), f"{given} is no list; write […]"),
        (("dict_type", "model_type", "model_attributes_type"), f"{given} is no object; write {{…}}"),
        (("string_type",), f"{given} is no text; put it in quotation marks"),
        (
            ("int_type", "int_parsing", "int_parsing_size", "float_type", "float_parsing"),
            f"{given} is no number; write one",
        ),
        (("bool_type", "bool_parsing"), f"{given} is neither true nor false; write one of them"),
    ):
        if kind in ends:
            return text
    return f"{otherwise[0].lower()}{otherwise[1:]}; correct it"


def _shown(loc: Place) -> str:
    """`jobs[2].operations[0].alternatives.kiln`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _near(document: Any, loc: Place) -> str:
    """The job or machine that it is about, by its id."""
    here, named = document, ""
    for depth, part in enumerate(loc):
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            break
        if depth == 1 and isinstance(here, Mapping) and here.get("id") is not None:
            named = f" ({str(loc[0]).removesuffix('s')} {here['id']!r})"
    return named


class _Stages:
    """Places of a problem's document led back to the stage file that it was made from."""

    def __init__(self, data: Mapping[str, Any], document: Mapping[str, Any], unit: str) -> None:
        self.unit = unit
        self.tick = document["tick_s"] / {"h": 3600, "min": 60, "s": 1}[unit]
        self.machines: list[str] = []
        self.of_id: dict[str, str] = {}
        for s, stage in enumerate(data["stages"]):
            for m, machine in enumerate(stage["machines"]):
                where = f"stages[{s}].machines[{m}]"
                self.machines.append(where)
                self.of_id[machine["id"]] = where

    def place(self, loc: Place) -> str:
        """In the words of the file."""
        match list(loc):
            case ["machines", int(k), *rest] if k < len(self.machines):
                return f"{self.machines[k]}{_dot(_shown(self._of_machine(rest)))}"
            case ["jobs", int(j), "operations", int(s), *rest]:
                return self._of_step(j, s, rest)
            case ["jobs", int(j), str(word)]:
                whole = {"id": "job_ids", "part_of": "orders", "operations": "stages"}
                return f"{whole.get(word, f'{word}_{self.unit}')}[{j}]"
            case [("carbon" | "tariff" | "generation" | "base_load"), _, ("step" | "start") as word]:
                return f"{_shown(loc[:2])}.{word}_{self.unit}"
            case ["transport", "ticks", *rest]:
                return f"transport.time_{self.unit}{_dot(_shown(rest))}"
            case ["horizon"]:
                return f"horizon_{self.unit}"
            case _:
                return _shown(loc)

    def text(self, text: str) -> str:
        """What the problem's own checks say of ids and numbers of operations."""
        led: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
            (r"^jobs\.(.+?)\.operations\.(\d+)", lambda m: f"stages[{m[2]}] (job {m[1]!r})"),
            (r"^machines\.([^.:]+)", lambda m: f"{self.of_id.get(m[1], 'machines')} (machine {m[1]!r})"),
            (r"^transport\.ticks", lambda _: f"transport.time_{self.unit}"),
            (r"(?<=: ends at )-?\d+(?=, before)", self._hours),
            (r"(?<=: begins at )\d+(?=, after)", self._hours),
            (r"(?<=before the horizon \()\d+(?=\))", self._hours),
        )
        for pattern, to in led:
            text = re.sub(pattern, to, text)
        return text

    def _hours(self, found: re.Match[str]) -> str:
        return f"{int(found[0]) * self.tick:g} {self.unit}"

    def _of_machine(self, rest: list[str | int]) -> list[str | int]:
        match rest:
            case ["power_kw", str(state), *more]:
                return [f"{state}_kw", *more]
            case [("preheat" | "unavailable" | "setup") as word, *more]:
                return [f"{word}_{self.unit}", *more]
            case _:
                return rest

    def _of_step(self, j: int, s: int, rest: list[str | int]) -> str:
        match rest:
            case ["alternatives", str(machine), *_]:
                return f"{self.of_id.get(machine, f'stages[{s}]')}.time_{self.unit}[{j}]"
            case ["size", *_]:
                return f"sizes[{j}]"
            case ["family", *_]:
                return f"families[{j}]"
            case [("wait_min" | "wait_max") as word, *_]:
                return f"stages[{s}].{word}_{self.unit}"
            case _:
                return f"stages[{s}]{_dot(_shown(rest))}"


def _dot(text: str) -> str:
    return f".{text}" if text and not text.startswith("[") else text

"""Why a plan begins something later than it could: the same plan is judged with that begun sooner.

    Held(problem, plan).why(run, begin)       # ("cheap", "begun at 3 h: cost +12.5")

A reason is given only where every sooner begin that was tried costs more of the measure it names, or breaks a rule; all
else stays as it is meanwhile, and each gap may be idled or off, as the plan has it or as needs least energy. Judging
takes long: once `JUDGED` operations were judged it is only said that the plan begins them later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloud.scheduling.pieces import Kind, Run
from cloud.scheduling.seam import KEY, NEAR
from messages.gaps import machine_states, moves
from messages.judge import objective, violations
from messages.plan import Measure, Plan
from messages.problem import Problem

TRIED = 8
"""Sooner begins tried: the soonest, and some between it and the plan's."""
JUDGED = 200_000
"""Operations judged per plan at most, some six seconds of it: 200 waits of 60 operations, 12 waits of 1,000."""
PLAIN = "it could have begun: the plan begins it later"
UNITS: dict[Measure, str] = {"cost": "", "carbon": " kg CO2e", "energy": " kWh", "peak": " kW"}
HOURS: dict[Measure, Kind] = {"cost": "cheap", "carbon": "clean"}


class Held:
    """One plan, judged once; `limits` hold beside those of the problem, `most` operations are judged."""

    def __init__(
        self, problem: Problem, plan: Plan, limits: Mapping[Measure, float] | None = None, most: int = JUDGED
    ) -> None:
        self.problem, self.plan, self.limits = problem, plan, limits or {}
        self._left = most // (2 * TRIED * max(1, len(plan.assignments)))  # waits that can be looked into
        self._known: dict[tuple[Run, int], tuple[Kind, str]] = {}
        self._ready = False

    def why(self, run: Run, begin: int) -> tuple[Kind, str]:
        """Why `run` takes its machine no sooner, though from `begin` on nothing is in its way."""
        key = (run, begin)
        if key not in self._known:
            if self._left <= 0:
                return "held", PLAIN
            self._left -= 1
            self._known[key] = self._tried(run, begin)
        return self._known[key]

    def _tried(self, run: Run, begin: int) -> tuple[Kind, str]:
        if not self._ready:
            self._values = objective(self.problem, self.plan)
            self._sound = not violations(self.problem, self.plan)
            cold = ("preheat", "off", "down")
            heated = {(one.machine, one.end) for one in self.plan.machine_states if one.state in cold}
            setups = {(one.machine, one.end): one.start for one in self.plan.machine_states if one.state == "setup"}
            self._off = {
                (one.job, one.op)
                for one in self.plan.assignments
                if (one.machine, setups.get((one.machine, one.start), one.start)) in heated
            }
            self._ready = True
        if not self._sound:
            return "held", PLAIN
        least: list[dict[str, float]] = []
        soonest, fault = run.begin, ""
        ways = sorted({max(1, round((run.begin - begin) * k / TRIED)) for k in range(1, TRIED + 1)}, reverse=True)
        for sooner in ways:
            kept = []
            for plan in self._shifted(run, sooner):
                wrong = self._wrong(plan)
                fault = fault or wrong
                if not wrong:
                    kept.append(plan.objectives)
            if kept:
                soonest = min(soonest, run.begin - sooner)
                least.append({key: min(one[key] for one in kept if key in one) for key in kept[0]})
        if not least:
            return "held", f"begun sooner, a rule or a limit would be broken: {fault}"
        return self._dearer(least, soonest)

    def _dearer(self, least: list[dict[str, float]], at: int) -> tuple[Kind, str]:
        """The measures of which every sooner begin costs more; `at`: the soonest of them, the first in `least`."""
        more: dict[Measure, float] = {}
        for name in UNITS:
            own = self._values.get(KEY[name])
            if own is not None and all(one[KEY[name]] > own + NEAR * max(1.0, abs(own)) for one in least):
                more[name] = least[0][KEY[name]] - own
        if not more:
            return "held", f"{PLAIN}, though sooner would cost nothing"
        unit = self.problem.time_unit
        told = ", ".join(f"{name} {value:+,.4g}{UNITS[name]}" for name, value in more.items())
        note = f"begun at {self.problem.in_unit(at):g}{unit and ' '}{unit}: {told}"
        # Of hours only where more is paid than the energy of longer idling explains.
        for name, kind in HOURS.items():
            if name in more and self._share(name, more) > 2 * self._share("energy", more):
                return kind, note
        return "held", note

    def _share(self, name: Measure, more: Mapping[Measure, float]) -> float:
        return more.get(name, 0.0) / max(NEAR, abs(self._values[KEY[name]]))

    def _shifted(self, run: Run, sooner: int) -> Iterator[Plan]:
        """The plan with `run` so much sooner: its gaps as they were, and as they need least energy."""
        mine = set(run.members)
        work = tuple(
            one.model_copy(update={"start": one.start - sooner, "end": one.end - sooner}) if one in mine else one
            for one in self.plan.assignments
        )
        carried = moves(self.problem, work)
        seen = []
        for off in (self._off, None):
            states = machine_states(self.problem, work, off)
            if states in seen:
                continue
            seen.append(states)
            plan = self.plan.model_copy(update={"assignments": work, "machine_states": states, "moves": carried})
            yield plan.model_copy(update={"objectives": objective(self.problem, plan)})

    def _wrong(self, plan: Plan) -> str:
        """What speaks against it; "" when nothing does."""
        for name, limit in self.limits.items():
            value = plan.objectives.get(KEY[name], 0.0)
            if value > limit + NEAR * max(1.0, abs(limit)):
                return f"{name} would be {value:,.6g}, more than {limit:,.6g}"
        return next(iter(violations(self.problem, plan)), "")

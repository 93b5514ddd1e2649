"""What is wrong with a scenario, in the words of whoever wrote it: the place, what stands there, what may stand there.

    complaint(error, …)     # "lose = 1: a share of the messages: 0 or more, and less than 1, such as 0.1"

Of several things that are wrong the first is told, a misspelt key before one that is missing.
"""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from messages.plant import explain, near

MAY_BE = {
    **dict.fromkeys(("lose", "double", "reorder"), "a share of the messages: 0 or more, and less than 1, such as 0.1"),
    "delay": "the greatest delay of a message in seconds: 0 to 3600",
    **dict.fromkeys(("at_s", "lasts_s"), "seconds: 0 or more, at most 1e9"),
    **dict.fromkeys(("machine", "node"), "a name: 1-32 of a-z 0-9 _ -, not beginning with _ or -"),
    **dict.fromkeys(("job", "product"), "a name in quotes, as the plant or the problem has it"),
}
"""Key → what may stand there."""
SHAPE = "happenings = [{kind = …, at_s = …}, …] and rates lose, double, delay, reorder, each where it is wanted"


def complaint(error: ValidationError, model: type[BaseModel], *, kinds: tuple[str, ...], most: int) -> str:
    """The first complaint. `kinds`: of happenings; `most`: of them in a scenario."""
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    place, given = first["loc"], first["input"]
    key = str(place[-1]) if place else ""
    where = f"happening {int(place[1]) + 1}: " if len(place) > 1 else ""
    match first["type"]:
        case "extra_forbidden":
            return explain(error, model)
        case "missing":
            return f"{where}it needs `{key}`" + (f", one of {', '.join(kinds)}" if key == "kind" else "")
        case "too_long":
            return f"{len(given)} happenings: at most {most}; leave some out"
    if key == "kind":
        return f"{where}kind = {given!r}: no such disturbance{near(str(given), kinds)}"
    if key in MAY_BE:
        said = f"{given:g}" if isinstance(given, float) else repr(given)
        return f"{where}{key} = {said}: {MAY_BE[key]}"
    return f"{where}a scenario is {SHAPE}; here stands {given!r:.40}"

"""A robot cell that decides by a model: what it measures, what it can be told, and when.

    INTERFACE                            # what a model of such a cell reads and decides
    state = values / HIGH                # (12,) scaled as the interface does it

Steps lie on a grid of plant time. At each of its points the cell does the newest action that it got and that is valid
then, and sends at once one burst with one sample of all metrics: what came of it. The time until the next point is for
the answer, `Action(kind=<one of ACTIONS>, id=<its own>, valid_until=<the next point>)`. Without one the cell waits, and
counts a missed step; an action is done once, and one of an unknown kind is refused. The first sample is the state the
cell begins with; nothing was done before it.

`METRICS` is the state the next decision is made of; `earned` and `emitted_kg` are totals since the cell began, so that
a step's reward and cost are differences and a lost message loses none; `did` is the number of the action that was
really done between the sample before and this one.
"""

from __future__ import annotations

from messages.learning import Feature, Interface
from messages.network import Network

METRICS = (
    "products_a", "products_b", "components", "materials_kg", "repair_left", "wear",
    "humidity", "carbon_kg_kwh", "carbon_in_1h", "carbon_in_4h", "allowance_used", "day_share",
)  # fmt: skip
"""The state, in order."""
HIGH = (24.0, 24.0, 20.0, 60.0, 1.0, 1.0, 1.0, 0.8, 0.8, 0.8, 2.0, 1.0)
"""Largest value of each; the smallest is 0."""
UNITS = ("1", "1", "1", "kg", "1", "1", "1", "kg/kWh", "kg/kWh", "kg/kWh", "1", "1")

ACTIONS = ("disassemble_a", "disassemble_b", "reroute", "wait", "service")
SAFE = "wait"
"""What a cell does when nobody says anything, and what is always allowed."""

EARNED, EMITTED, DID = "earned", "emitted_kg", "did"
"""Money; kg of carbon, a counter; index into ACTIONS, a code."""
MOST_EARNED, MOST_EMITTED_KG = 2_000.0, 250.0
"""No cell earns or loses, or emits, more than this in a step: what looks like more is a bad reading."""

INTERFACE = Interface(
    features=[Feature(metric=name, low=0.0, high=high) for name, high in zip(METRICS, HIGH, strict=True)],
    actions=list(ACTIONS),
)
NETWORK = Network(inputs=len(METRICS), hidden=(128, 128), outputs=len(ACTIONS))
"""What a model of such a cell is, unless somebody chooses otherwise."""

"""How patient a plant is: every interval of its swarm, from how long its work takes.

    pace = pace_of(plant); pace.retry_s

A kiln that bakes for hours may wait a minute for a second try, a lathe that turns for twelve seconds may not. The
typical time of a plant is the median of its operations' nominal times and the longest way a part is carried. From two
hours on, intervals are those of `Pace()`; below they shrink with it, but not under what messages need on their way.
All are plant time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median

from messages.clock import SECOND
from messages.plant import Plant

TYPICAL_S = 7200.0
"""Work that takes so long, or longer, has the intervals of `Pace()`."""
LEAST_SHARE = 1e-3
IN_A_LEASE = 20
"""A part must be fetched, and everything before it done, within a lease: so many typical times, if that is less."""
LEAST_LEASE_S = 10.0
"""An award must come, and its agenda go, within it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of plant time."""

    offer_s: float = 30.0
    """bids are awaited; sooner if every able node has answered"""
    lease_s: float = 14_400.0
    """an award gives to begin"""
    repeat_s: float = 60.0
    """an award or a withdrawal nobody acknowledged is sent again"""
    silent_s: float = 300.0
    """an award nobody acknowledged is withdrawn"""
    skew_s: float = 5.0
    """a node's clock may be behind the judge's"""
    retry_s: float = 60.0
    """a task rests after a refusal, or a round without bids"""
    overdue_s: float = 1800.0
    """work that should have ended on a node that is away is called unknown"""
    bid_s: float = 1200.0
    """a bid is good: machines break, queues change"""
    renew_s: float = 600.0
    """a judge says again that it judges"""
    agenda_s: float = 60.0
    """a node says again what it holds, changed or not"""
    delegate_s: float = 60.0
    """delegates are told what has changed, at most so often"""
    answer_s: float = 300.0
    """an action a machine has not answered is sent again; a machine that refused one rests"""
    action_s: float = 3600.0
    """an action nobody answered is given up"""

    @property
    def word_s(self) -> float:
        """The word of a judge is good so long: two renewals may be lost."""
        return 3 * self.renew_s

    def believed(self, until: int, *, at: int, now: int) -> int:
        """Until when a word said `at` is good for who hears it `now`, µs: not longer than it was for its sender.

        So a clock that was a year ahead for one word is believed for a word's time, and not for a year.
        """
        return min(until, now + max(0, until - at) + round(self.skew_s * SECOND))


PATIENT = Pace()


def pace_of(plant: Plant) -> Pace:
    """The intervals of a plant."""
    hours = [one for product in plant.products for _, able in plant.route(product) for one in able.values() if one]
    layout = plant.layout
    ways_s = [
        carried
        for before, ways in (layout.ways_s if layout else {}).items()
        for after in ways
        if layout and (carried := layout.carried_s(before, after)) is not None
    ]
    typical_s = median(hours) * 3600 + max(ways_s, default=plant.transport_s) if hours else TYPICAL_S
    share = min(1.0, max(LEAST_SHARE, typical_s / TYPICAL_S))
    full = PATIENT
    found = Pace(
        offer_s=max(0.5, share * full.offer_s),
        lease_s=min(full.lease_s, max(LEAST_LEASE_S, IN_A_LEASE * typical_s)),
        repeat_s=max(1.0, share * full.repeat_s),
        silent_s=max(5.0, share * full.silent_s),
        skew_s=max(0.5, share * full.skew_s),
        retry_s=max(0.5, share * full.retry_s),
        overdue_s=max(10.0, share * full.overdue_s),
        bid_s=min(3600.0, max(10.0, typical_s / 6)),
        renew_s=max(5.0, share * full.renew_s),
        agenda_s=max(1.0, share * full.agenda_s),
        delegate_s=max(2.0, share * full.delegate_s),
        answer_s=min(full.answer_s, max(2.0, typical_s / 8)),
        action_s=min(full.action_s, max(10.0, IN_A_LEASE * typical_s / 2)),
    )
    return Pace(**{name: float(round(value)) if value >= 1 else value for name, value in asdict(found).items()})

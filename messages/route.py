"""Where messages go: topic, filter and parser from one template, so that they cannot disagree.

    LATEST = Route("latest", "up/latest/{device}", Latest, qos=0, retained=True)
    LATEST.topic(site="s1", node="press-4", device="ram")   # shoal/v1/s1/press-4/up/latest/ram
    LATEST.filter(site="s1")                                # shoal/v1/s1/+/up/latest/+
    LATEST.ids("shoal/v1/s1/press-4/up/latest/ram")         # {"site": "s1", "node": "press-4", "device": "ram"}

Ids are `[a-z0-9][a-z0-9_-]{0,31}`. Order numbers, UUIDs and other external names stay in payloads; where
one must become a topic level, `topic_id` derives it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from messages.errors import BadMessage, UsageError
from messages.message import Message

ROOT = "shoal"
VERSION = "v1"
RESERVED_NODES = frozenset({"all", "site", "cloud"})
"""Node names that address the site (`all`), speak for it (`site`) or for the cloud (`cloud`)."""

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DERIVED = re.compile(r"x-[a-z2-7]{26}")


def check_id(kind: str, value: str) -> str:
    """Return `value` if it may be a topic level; else UsageError naming the cure."""
    if not _ID.fullmatch(value):
        raise UsageError(f"{kind}={value!r}: use 1-32 of a-z 0-9 _ - (it becomes a topic level)")
    return value


def check_node(value: str) -> str:
    """Return `value` if a real node may carry this name."""
    check_id("node", value)
    if value in RESERVED_NODES:
        raise UsageError(f"node={value!r} is reserved; choose another name than {', '.join(sorted(RESERVED_NODES))}")
    return value


def topic_id(external: str) -> str:
    """A topic level for an external id: itself if it fits and cannot be mistaken, else `x-` + 128 bits of SHA-256.

    Injective up to SHA-256 collisions: a plain id that looks derived is derived too.

    >>> topic_id("b07"), topic_id("PO/4711")
    ('b07', 'x-m3ckkpzz5evdmvow5kxw6djnzm')
    """
    if _ID.fullmatch(external) and not _DERIVED.fullmatch(external):
        return external
    import base64

    digest = hashlib.sha256(external.encode()).digest()[:16]
    return "x-" + base64.b32encode(digest).decode().rstrip("=").lower()


TOPICS_REMEMBERED = 10_000
"""Topics a route remembers; beyond that it begins again."""


@dataclass(frozen=True)
class Route:
    """One row of the topic map: `template` below `shoal/v1/<site>/<node>/`, the message, and how surely it travels.

    `node` fixes the node level (`all`, `site`) where the route is not one node's own.
    """

    name: str
    template: str
    message: type[Message]
    qos: int
    retained: bool = False
    node: str | None = None
    about: str = ""
    levels: tuple[str, ...] = field(init=False, repr=False)
    keys: tuple[str, ...] = field(init=False, repr=False)
    """Names of the variable levels, in order."""
    _topics: dict[tuple[tuple[str, str], ...], str] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        node = self.node or "{node}"
        levels = (ROOT, VERSION, "{site}", node, *self.template.split("/"))
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "keys", tuple(level[1:-1] for level in levels if level[0] == "{"))
        object.__setattr__(self, "_topics", {})

    @property
    def plane(self) -> str:
        """`raw`, `act`, `peer`, `up` or `down`: the direction, on which access rules hang."""
        return self.template.split("/", 1)[0]

    def topic(self, **ids: str) -> str:
        """The topic of these ids; every variable level must be given and valid. Topics are remembered: few, often."""
        key = tuple(ids.items())
        known = self._topics.get(key)
        if known is None:
            self._refuse_strangers(ids)
            known = "/".join(self._fill(level, ids) for level in self.levels)
            if len(self._topics) >= TOPICS_REMEMBERED:
                self._topics.clear()
            self._topics[key] = known
        return known

    def filter(self, **ids: str) -> str:
        """The subscription: given levels fixed, the others `+`."""
        self._refuse_strangers(ids)
        return "/".join(
            "+" if level[0] == "{" and level[1:-1] not in ids else self._fill(level, ids) for level in self.levels
        )

    def ids(self, topic: str) -> dict[str, str]:
        """The variable levels of `topic`; BadMessage if it is not of this route."""
        parts = topic.split("/")
        if len(parts) != len(self.levels):
            raise BadMessage(f"topic {topic!r} is not of route {self.name}")
        found: dict[str, str] = {}
        for level, part in zip(self.levels, parts, strict=True):
            if level[0] == "{":
                if not _ID.fullmatch(part):
                    raise BadMessage(f"topic {topic!r}: {level[1:-1]}={part!r} is not an id")
                found[level[1:-1]] = part
            elif level != part:
                raise BadMessage(f"topic {topic!r} is not of route {self.name}")
        return found

    def matches(self, topic: str) -> bool:
        """Whether `topic` is of this route."""
        try:
            self.ids(topic)
        except BadMessage:
            return False
        return True

    def _fill(self, level: str, ids: dict[str, str]) -> str:
        if level[0] != "{":
            return level
        key = level[1:-1]
        if key not in ids:
            raise UsageError(f"route {self.name} needs {key}=…")
        return check_id(key, ids[key])

    def _refuse_strangers(self, ids: dict[str, str]) -> None:
        strangers = set(ids) - set(self.keys)
        if strangers:
            raise UsageError(
                f"route {self.name} has no level {', '.join(sorted(strangers))}; it has {', '.join(self.keys)}"
            )

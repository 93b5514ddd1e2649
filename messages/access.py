"""Who may read and write what: Mosquitto access rules made from the routes and a list of the plant.

    acl(ROUTES, {"s1": {"press-4": ["ram", "mould"]}})

Users, as password-file names or certificate common names:

    s1/press-4        a node: reads `raw`, writes `act` and `up`, reads `down` of itself, of its site and of `all`
    s1/press-4/ram    a device: writes its own `raw`, reads its own `act`, nothing else
    role.cloud        cloud services: read `up`, read and write `down`, speak as node `cloud`
    role.operator     operators and ERP: read `up` and `down`, write orders and signals of the site
    role.integrator   reads `up`

A node's own planes are `pattern` rules with `%u`, so that only the site-wide ones need its section. The dot
keeps role names from ever being a site (ids have none), so the patterns give roles nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from messages.errors import UsageError
from messages.route import ROOT, VERSION, Route, check_id, check_node

CLOUD = "role.cloud"
OPERATOR = "role.operator"
INTEGRATOR = "role.integrator"
PLANES = ("raw", "act", "peer", "up", "down")

Plant = Mapping[str, Mapping[str, Sequence[str]]]
"""Site → node → devices."""

_BASE = f"{ROOT}/{VERSION}"


def node_user(site: str, node: str) -> str:
    """The user of a node."""
    return f"{check_id('site', site)}/{check_node(node)}"


def device_user(site: str, node: str, device: str) -> str:
    """The user of a device; a plane's name is refused, because the node patterns would then fit it."""
    if device in PLANES:
        raise UsageError(f"device={device!r} is the name of a plane; choose another than {', '.join(PLANES)}")
    return f"{node_user(site, node)}/{check_id('device', device)}"


def acl(routes: Iterable[Route], plant: Plant, foreign: Mapping[str, Sequence[str]] | None = None) -> str:
    """The text of Mosquitto's `acl_file` for these routes and this plant; `foreign`: node user → topics it may read."""
    routes = tuple(routes)
    for route in routes:
        if route.plane not in PLANES:
            raise UsageError(f"route {route.name}: {route.plane!r} is no plane; use one of {', '.join(PLANES)}")
    return "\n".join(_lines(routes, plant, foreign or {})) + "\n"


def _lines(routes: Sequence[Route], plant: Plant, foreign: Mapping[str, Sequence[str]]) -> Iterator[str]:
    own = {route.plane for route in routes if route.node is None}
    yield "# Generated from the routes: messages/access.py. Username: <site>/<node>, or as named below."
    yield ""
    for plane, verb in (("raw", "read"), ("act", "write"), ("peer", "write"), ("up", "write"), ("down", "read")):
        if plane in own:
            yield f"pattern {verb} {_BASE}/%u/{plane}/#"

    yield from _user(
        CLOUD,
        f"topic read {_BASE}/+/+/up/#",
        f"topic readwrite {_BASE}/+/+/down/#",
        f"topic write {_BASE}/+/cloud/up/#",
    )
    site_wide = [route for route in routes if route.node == "site"]
    yield from _user(
        OPERATOR,
        f"topic read {_BASE}/+/+/up/#",
        f"topic read {_BASE}/+/+/down/#",
        *(f"topic write {route.filter()}" for route in site_wide),
    )
    yield from _user(INTEGRATOR, f"topic read {_BASE}/+/+/up/#")

    shared = sorted({route.node for route in routes if route.node in ("all", "site") and route.plane == "down"})
    of_device = [route for route in routes if route.plane in ("raw", "act") and "device" in route.keys]
    for site, nodes in sorted(plant.items()):
        for node, devices in sorted(nodes.items()):
            lines = [f"topic read {_BASE}/{site}/{name}/down/#" for name in shared]
            if "peer" in own:
                lines.append(f"topic read {_BASE}/{site}/+/peer/#")
            lines += [f"topic read {topic}" for topic in foreign.get(node_user(site, node), ())]
            yield from _user(node_user(site, node), *lines)
            for device in sorted(devices):
                yield from _user(
                    device_user(site, node, device),
                    *(
                        f"topic {'write' if route.plane == 'raw' else 'read'} "
                        f"{route.filter(site=site, node=node, device=device)}"
                        for route in of_device
                    ),
                )


def _user(name: str, *lines: str) -> Iterator[str]:
    yield ""
    yield f"user {name}"
    yield from lines

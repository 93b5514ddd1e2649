"""A body of lines, posted until each of its rows is stored or refused for good; pure but for the `post` it is given.

    refused = settle(post, text)        # [(first, end, reason), …]: rows the server will never take; the rest is stored

A server that takes a part says 400 or 422 and not which rows: the body is halved until only the bad rows are left.
Where it says how many it dropped, rows that are bad together are found together (a thousand rows older than the
retention cost one request); else a bad row costs 2·log2(n) requests, and a body of n rows at most 2n − 1. Every row
that is not refused has been confirmed by a 204, since a partial answer confirms nothing, and any other 2xx is not
InfluxDB's. StoreDown and StoreRefused pass through: nothing is decided then, and all is posted again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from cloud.stores.http import Reply
from messages.errors import StoreDown, StoreRefused

REASON_CHARS = 300
"""Of what a server says about rows."""

_ROWS = re.compile(
    r"partial write|unable to parse|parsing failed|field type conflict|retention policy|limit exceeded|out of range"
    r"|time outside range|invalid (field|tag|number|boolean|timestamp|measurement)"
    r'|"code":\s*"unprocessable entity"',
    re.IGNORECASE,
)
"""What servers say of rows; another 400 or 422 is about the request, and no row goes to quarantine for it."""
_DROPPED = re.compile(r"dropped=(\d+)")

Post = Callable[[bytes], Reply]


class Refused(NamedTuple):
    """Rows first to end, end outside, that will never be stored."""

    first: int
    end: int
    reason: str


def settle(post: Post, text: bytes, *, init: str = "") -> list[Refused]:
    """Post `text`, a row per line, each ended by a newline; `init` says how the database is made, if it is missing."""
    refused: list[Refused] = []
    if not text:
        return refused
    reply = post(text)
    said = _trouble(reply, init)
    if said is None:
        return refused
    lines = [line + b"\n" for line in text.split(b"\n")[:-1]]
    waiting = [(0, len(lines))]
    while waiting:
        first, end = waiting.pop()
        if (first, end) != (0, len(lines)):
            reply = post(b"".join(lines[first:end]))
            said = _trouble(reply, init)
        if said is None:
            continue
        rows = end - first
        if rows == 1 and reply.status == 413:
            raise failure(reply, init)
        dropped = _DROPPED.search(said)
        if rows == 1 or (reply.status != 413 and dropped is not None and int(dropped[1]) >= rows):
            refused.append(Refused(first, end, _short(_DROPPED.sub("", said))))
        else:
            middle = first + rows // 2
            waiting += [(middle, end), (first, middle)]
    return refused


def _trouble(reply: Reply, init: str) -> str | None:
    """None: stored. A text: rows are bad (or too many). Raises where rows are not to blame."""
    status, said = reply.status, reply.text.strip()
    if status == 204:
        return None
    if status == 413 or (status in (400, 422) and _ROWS.search(said)):
        return said or f"status {status}"
    raise failure(reply, init)


def failure(reply: Reply, init: str = "") -> StoreDown:
    """What an answer that is not about rows means."""
    status, said = reply.status, _short(reply.text.strip()) or "no reason given"
    if status in (401, 403):
        return StoreRefused(
            f"the store answers {status} ({said}): correct user and password, or the token and its rights"
        )
    if status == 404 or "database not found" in said:
        return StoreRefused(
            f"the store answers {status} ({said}): make the database{init and ' with ' + init}, or correct it"
        )
    if status == 413:
        return StoreRefused(
            f"the store answers 413 ({said}) even to one row: raise the largest body it takes, or the proxy before it"
        )
    if 200 <= status < 300:
        return not_influxdb(str(status))
    if status == 429 or status >= 500:
        return StoreDown(f"the store answers {status} ({said}): trying again", again_in_s=reply.retry_after_s)
    return StoreRefused(f"the store answers {status} ({said}): is this the server and the version that is meant?")


def not_influxdb(answer: str) -> StoreRefused:
    """Somebody answers, who need not have stored anything."""
    return StoreRefused(
        f"this url does not answer a write as InfluxDB does (204), but {answer}: correct url and kind of the store"
    )


def _short(said: str) -> str:
    """The server's words without their JSON."""
    found = re.search(r'"(?:error|message)":\s*"((?:[^"\\]|\\.)*)"', said)
    text = (found[1].replace('\\"', '"') if found else said).strip()
    return text if len(text) <= REASON_CHARS else text[: REASON_CHARS - 1] + "…"

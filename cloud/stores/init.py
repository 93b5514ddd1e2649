"""`shoal cloud --init-store`: the database, its retention and what queries need, made or brought to the settings.

    for line in init_store(settings.store_file): print(line)       # what was done, or was already so

Safe to repeat: nothing that holds data is dropped, only made or given another retention. A shorter retention lets
InfluxDB drop what is older. Errors say what to do: StoreDown (not reachable), StoreRefused (rights), ConfigError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from cloud.stores.http import Http
from cloud.stores.influx import Influx, Influx1Store, Influx2Store
from cloud.stores.influxql import InfluxQl, name
from cloud.stores.posting import failure
from cloud.stores.sqlite import SqliteStore
from messages.errors import ConfigError, StoreRefused

DAY_S = 86_400
LEAST_S = 3_600
"""InfluxDB keeps an hour at least."""


def init_store(settings: SqliteStore | Influx1Store | Influx2Store) -> Iterator[str]:
    """One line for each thing that was made, changed or found."""
    local = settings if isinstance(settings, SqliteStore) else settings.local
    if isinstance(settings, Influx1Store):
        with settings.http() as http:
            yield from _influx1(InfluxQl(http, settings.database, init=""), settings)
    elif isinstance(settings, Influx2Store):
        with settings.http() as http:
            yield from _influx2(http, settings)
    new = not local.path.exists()
    with local.open():
        yield f"file {local.path}: {'made' if new else 'is there'}"


# -- private -----------------------------------------------------------------------------------------------


def _influx1(ql: InfluxQl, settings: Influx1Store) -> Iterator[str]:
    database, wanted_s = settings.database, _retention_s(settings)
    there = {row[0] for piece in ql.tell("SHOW DATABASES") for row in piece.rows}
    if database not in there:
        ql.tell(f"CREATE DATABASE {name(database)}")
    yield f"database {database}: {'is there' if database in there else 'made'}"
    kept = f"DURATION {f'{wanted_s}s' if wanted_s else 'INF'} SHARD DURATION {_shard_s(wanted_s)}s"
    for piece in ql.tell(f"SHOW RETENTION POLICIES ON {name(database)}"):
        for row in piece.rows:
            policy = dict(zip(piece.columns, row, strict=True))
            if not policy["default"]:
                continue
            if _go_duration_s(policy["duration"]) != wanted_s:
                ql.tell(f"ALTER RETENTION POLICY {name(policy['name'])} ON {name(database)} {kept}")
                yield f"retention policy {policy['name']}: was {policy['duration']}, is now {_said(settings)}"
            else:
                yield f"retention policy {policy['name']}: keeps {_said(settings)}"
            return
    ql.tell(f'CREATE RETENTION POLICY "shoal" ON {name(database)} {kept} REPLICATION 1 DEFAULT')
    yield f"retention policy shoal: made, keeps {_said(settings)}"


def _influx2(http: Http, settings: Influx2Store) -> Iterator[str]:
    org = _first(_call(http, "GET", "/api/v2/orgs?" + urlencode({"org": settings.org})), "orgs")
    if org is None:
        raise StoreRefused(f"there is no organisation {settings.org!r} this token may see: correct org or token")
    rules = [{"type": "expire", "everySeconds": _retention_s(settings)}] if _retention_s(settings) else []
    named = urlencode({"orgID": org["id"], "name": settings.bucket})
    bucket = _first(_call(http, "GET", f"/api/v2/buckets?{named}", missing=True), "buckets")
    if bucket is None:
        body = {"orgID": org["id"], "name": settings.bucket, "retentionRules": rules}
        bucket = _call(http, "POST", "/api/v2/buckets", body)
        yield f"bucket {settings.bucket}: made, keeps {_said(settings)}"
    else:
        kept_s = next((int(rule.get("everySeconds", 0)) for rule in bucket.get("retentionRules", [])), 0)
        if kept_s != _retention_s(settings):
            _call(http, "PATCH", f"/api/v2/buckets/{bucket['id']}", {"retentionRules": rules})
            yield f"bucket {settings.bucket}: kept {kept_s / DAY_S:g} days (0: for ever), now {_said(settings)}"
        else:
            yield f"bucket {settings.bucket}: is there, keeps {_said(settings)}"
    asked = urlencode({"orgID": org["id"], "bucketID": bucket["id"], "db": settings.bucket})
    mapping = _first(_call(http, "GET", f"/api/v2/dbrps?{asked}", missing=True), "content")
    if mapping is None or mapping.get("virtual"):
        body = {"orgID": org["id"], "bucketID": bucket["id"], "database": settings.bucket,
                "retention_policy": "autogen", "default": True}  # fmt: skip
        _call(http, "POST", "/api/v2/dbrps", body)
    yield f"DBRP mapping of database {settings.bucket}: {'made' if mapping is None else 'is there'}"


def _call(http: Http, method: str, path: str, body: dict[str, Any] | None = None, *, missing: bool = False) -> Any:
    """The JSON of a good answer. `missing`: 404 is an answer, too."""
    data = None if body is None else json.dumps(body).encode()
    reply = http.request(method, path, data, "application/json" if data is not None else "")
    if reply.status == 404 and missing:
        return {}
    if not 200 <= reply.status < 300:
        raise failure(reply)
    try:
        return json.loads(reply.text or "{}")
    except ValueError:
        raise StoreRefused(f"{http.url} answers no JSON: is this InfluxDB 2? (3 makes its database itself)") from None


def _first(answer: Any, key: str) -> dict[str, Any] | None:
    found = answer.get(key) if isinstance(answer, dict) else None
    return found[0] if found else None


def _retention_s(settings: Influx) -> int:
    seconds = round(settings.retention_days * DAY_S)
    if 0 < seconds < LEAST_S:
        raise ConfigError(
            f"store.retention_days = {settings.retention_days:g}: InfluxDB keeps an hour or more; 0: for ever"
        )
    return seconds


def _shard_s(kept_s: int) -> int:
    """InfluxDB's own choice, which it makes only for new policies; what is dropped is dropped by the shard."""
    if kept_s == 0 or kept_s > 180 * DAY_S:
        return 7 * DAY_S
    return DAY_S if kept_s >= 2 * DAY_S else 3600


def _said(settings: Influx) -> str:
    return f"{settings.retention_days:g} days" if settings.retention_days else "everything"


def _go_duration_s(text: str) -> int:
    """Seconds of `2160h0m0s`.

    >>> _go_duration_s("26h3m4s")
    93784
    """
    return sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([hms])", text))

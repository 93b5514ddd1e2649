"""InfluxDB as a store: which server, and how it is spoken to. What is kept where: influx_store.py.

    [store]
    kind = "influx1"                      # InfluxDB 1.x; "influx2": InfluxDB 2.x and 3
    url = "http://127.0.0.1:8086"
    database = "shoal"

1.x takes `/write?db=`; 2.x and 3 take `/api/v2/write` through influxdb-client, one request per call and none of its
retries (ours are for ever, and nothing is dropped). All are asked in InfluxQL. Secrets are in headers, never in text.
Only 204 means stored; as `influx1` its sender must name itself, as InfluxDB does from 1.4 on.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import AfterValidator, Field, SecretStr

from cloud.stores.http import Http, Reply, checked_url
from cloud.stores.influx_store import InfluxConnection, Precision
from cloud.stores.influxql import InfluxQl
from cloud.stores.posting import not_influxdb
from cloud.stores.sqlite import QuarantineMb, SqliteStore
from messages.errors import StoreDown
from messages.settings import Section

INIT = "`shoal cloud --init-store --config cloud.toml`"
"""What makes the database."""


class Influx(Section):
    """What the kinds of InfluxDB have in common."""

    path: Path = Field(Path("shoal.db"), description="the local file for all but the series; relative to data")
    url: Annotated[str, AfterValidator(checked_url)] = Field(
        "http://127.0.0.1:8086", description="http(s)://host:port of InfluxDB, without user and password"
    )
    connections: int = Field(3, ge=1, le=16, description="writes at a time: InfluxDB gives each request one core")
    timeout_s: float = Field(10.0, gt=0, le=300, description="no answer for so long means down; then it is asked again")
    retention_days: float = Field(0, ge=0, description="set in InfluxDB by --init-store, and for the file; 0: for ever")
    max_series: int = Field(100_000, ge=1, description="device × metric; readings of further ones go to quarantine")
    quarantine_mb: QuarantineMb = Field(64, description="room for what could not be stored; the oldest go first")

    @property
    def local(self) -> SqliteStore:
        """The file beside InfluxDB."""
        return SqliteStore(
            path=self.path,
            retention_days=self.retention_days,
            max_series=self.max_series,
            quarantine_mb=self.quarantine_mb,
        )


class Influx1Store(Influx):
    """InfluxDB 1.x."""

    kind: Literal["influx1"] = Field("influx1", description="InfluxDB 1.x, as Debian and Raspberry Pi OS ship it")
    database: str = Field("shoal", min_length=1, description="name of the database")
    user: str | None = Field(None, description="where InfluxDB asks who it is")
    password: SecretStr | None = Field(None, description="of user")

    def below(self, directory: Path) -> Influx1Store:
        """The same store with its local file below `directory`, unless its path is absolute."""
        return self.model_copy(update={"path": directory / self.path})

    def open(self, *, read_only: bool = False) -> InfluxConnection:
        """Open the local file; InfluxDB may be down. UsageError: no such file, or another process writes it."""
        http = self.http()
        points = Points1(http, self.database)
        return InfluxConnection(
            self.local, points, InfluxQl(http, self.database, init=INIT), connections=self.connections, init=INIT,
            read_only=read_only,
        )  # fmt: skip

    def http(self) -> Http:
        """Connections that say who asks."""
        headers = {}
        if self.user is not None:
            secret = self.password.get_secret_value() if self.password is not None else ""
            headers["Authorization"] = "Basic " + base64.b64encode(f"{self.user}:{secret}".encode()).decode()
        return Http(self.url, timeout_s=self.timeout_s, headers=headers)


class Influx2Store(Influx):
    """InfluxDB 2.x and 3."""

    kind: Literal["influx2"] = Field("influx2", description="InfluxDB 2.x and 3: /api/v2/write, token")
    org: str = Field("shoal", description="organisation; InfluxDB 3 has none and leaves it aside")
    bucket: str = Field(
        "shoal", min_length=1, description="bucket, and database of its DBRP mapping; in 3 the database"
    )
    token: SecretStr = Field(SecretStr(""), description="API token with the right to read and write the bucket")

    def below(self, directory: Path) -> Influx2Store:
        """The same store with its local file below `directory`, unless its path is absolute."""
        return self.model_copy(update={"path": directory / self.path})

    def open(self, *, read_only: bool = False) -> InfluxConnection:
        """Open the local file; InfluxDB may be down. UsageError: no such file, or another process writes it."""
        http = self.http()
        return InfluxConnection(
            self.local, Points2(self), InfluxQl(http, self.bucket, init=INIT),
            connections=self.connections, init=INIT, read_only=read_only,
        )  # fmt: skip

    def http(self) -> Http:
        """Connections that say who asks."""
        secret = self.token.get_secret_value()
        return Http(self.url, timeout_s=self.timeout_s, headers={"Authorization": f"Token {secret}"} if secret else {})


class Points1:
    """`/write` of InfluxDB 1.x."""

    def __init__(self, http: Http, database: str) -> None:
        self._http = http
        self._path = {
            precision: "/write?" + urlencode({"db": database, "precision": precision}) for precision in ("u", "n")
        }

    def post(self, body: bytes, precision: Precision) -> Reply:
        """Write lines; the answer is given when they are on InfluxDB's disk. StoreRefused: it is not InfluxDB ≥ 1.4."""
        reply = self._http.post(self._path[precision], body)
        if reply.status == 204 and not reply.build:  # VictoriaMetrics says 204, too, before it is on its disk
            raise not_influxdb("204 without X-Influxdb-Build")
        return reply

    def close(self) -> None:
        """End writes under way."""
        self._http.close()


class Points2:
    """`/api/v2/write` by influxdb-client: synchronous, our lines, our retries."""

    def __init__(self, settings: Influx2Store) -> None:
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.service.write_service import WriteService
        from urllib3.util.retry import Retry

        self._settings = settings
        self._client = InfluxDBClient(
            url=settings.url,
            token=settings.token.get_secret_value(),
            org=settings.org,
            timeout=round(settings.timeout_s * 1000),
            retries=Retry(0, redirect=0),
            connection_pool_maxsize=settings.connections,
        )
        # WriteApi takes any 2xx for success and does not tell which.
        self._api: Any = WriteService(self._client.api_client)  # type: ignore[no-untyped-call]

    def post(self, body: bytes, precision: Precision) -> Reply:
        """Write lines."""
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        try:
            _, status, _ = self._api.post_write_with_http_info(
                self._settings.org,
                self._settings.bucket,
                body,
                precision="us" if precision == "u" else "ns",
                content_type="text/plain; charset=utf-8",
            )
        except ApiException as error:
            if not error.status:
                raise self._down(error) from None
            said = str(error.headers.get("Retry-After", "")) if error.headers else ""
            text = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
            return Reply(error.status, text, float(said) if said.isdecimal() and len(said) < 10 else 0.0)
        except (HTTPError, OSError) as error:
            raise self._down(error) from None
        return Reply(status, "")

    def close(self) -> None:
        """Give the connections up; a write under way ends with its answer or its time."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _down(self, error: Exception) -> StoreDown:
        url = self._settings.url
        why = str(getattr(error, "reason", "") or error)[:200]
        return StoreDown(f"{url} is not reachable ({why}): start the server or correct the url; trying again")

"""The bus over TLS on a real Mosquitto: a node is who its certificate says, and the rules hold for that name."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import eventually

from messages.access import CLOUD, acl
from messages.broker import Broker
from messages.bus import Bus, Received, tls_context
from messages.errors import BusLost, BusRefused, UsageError
from messages.message import Message
from messages.observe import observe
from messages.route import Route

REPO = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")


class Note(Message):
    n: int
    text: str = ""


EVENT = Route("event", "up/event/{device}", Note, qos=1)
ME = {"site": "s1", "node": "press-4"}


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        folder,
        "req",
        "-x509",
        *key,
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
        "-keyout",
        f"{name}.key",
        "-out",
        f"{name}.crt",
    )


def certificate(folder: Path, file: str, common_name: str, ca: str = "ca") -> None:
    """A certificate of `ca` for `common_name`, which may contain slashes, valid for 127.0.0.1."""
    escaped = common_name.replace("/", "\\/")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(folder, "req", *key, "-subj", f"/CN={escaped}", "-keyout", f"{file}.key", "-out", f"{file}.csr")
    (folder / f"{file}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        folder,
        *("x509", "-req", "-days", "2", "-in", f"{file}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key"),
        *("-CAcreateserial", "-extfile", f"{file}.ext", "-out", f"{file}.crt"),
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    authority(folder, "ca")
    authority(folder, "stranger")
    certificate(folder, "broker", "broker")
    certificate(folder, "node", "s1/press-4")
    certificate(folder, "cloud", CLOUD)
    certificate(folder, "foreign", "s1/press-4", ca="stranger")
    return folder


@pytest.fixture
def secure(keys: Path, tmp_path: Path) -> Iterator[Broker]:
    extra = "\n".join(
        [
            f"cafile {keys / 'ca.crt'}",
            f"certfile {keys / 'broker.crt'}",
            f"keyfile {keys / 'broker.key'}",
            "require_certificate true",
            "use_identity_as_username true",
        ]
    )
    rules = acl([EVENT], {"s1": {"press-4": []}})
    with Broker(directory=tmp_path / "broker", acl=rules, extra=extra) as broker:
        yield broker


def bus(broker: Broker, keys: Path, name: str, ca: str = "ca") -> Bus:
    tls = tls_context(keys / f"{ca}.crt", keys / f"{name}.crt", keys / f"{name}.key")
    return Bus(broker.host, broker.port, client_id=name, tls=tls, backoff_s=(0.05, 0.2))


async def test_a_node_is_who_its_certificate_says_and_large_and_many_messages_pass(secure: Broker, keys: Path) -> None:
    seen: list[Received] = []

    async def keep(batch: list[Received]) -> None:
        seen.extend(batch)

    node, cloud = bus(secure, keys, "node"), bus(secure, keys, "cloud")
    cloud.on(EVENT, keep, batch=True, site="s1")
    tasks = [asyncio.create_task(node.run()), asyncio.create_task(cloud.run())]
    try:
        await node.wait_connected(20)
        await cloud.wait_connected(20)
        big = "x" * 1_000_000
        burst = [node.publish_nowait(EVENT, Note(n=n), **ME, device="ram") for n in range(500)]
        burst.append(node.publish_nowait(EVENT, Note(n=500, text=big), **ME, device="ram"))
        burst.append(node.publish_nowait(EVENT, Note(n=501), **ME, device="ram"))
        await asyncio.wait_for(asyncio.gather(*burst), 60)
        await eventually(lambda: len(seen) == 502)
        assert [one.message.n for one in seen] == list(range(502))
        assert seen[500].message.text == big
        with pytest.raises(BusRefused, match="access rules"):
            await node.publish(EVENT, Note(n=1), site="s1", node="oven-1", device="ram")
        with pytest.raises(BusRefused, match="access rules"):
            await cloud.publish(EVENT, Note(n=1), **ME, device="ram")
        assert (node.counts.reconnects, cloud.counts.reconnects) == (0, 0)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("own,ca", [("foreign", "ca"), ("node", "stranger")])
async def test_neither_side_talks_to_a_stranger(secure: Broker, keys: Path, own: str, ca: str) -> None:
    stranger = bus(secure, keys, own, ca)
    run = asyncio.create_task(stranger.run())
    try:
        with pytest.raises(BusLost):
            await stranger.wait_connected(1)
        assert not run.done(), "it keeps trying: certificates can be put right"
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def test_the_observer_speaks_tls_too(secure: Broker, keys: Path) -> None:
    tls = tls_context(keys / "ca.crt", keys / "node.crt", keys / "node.key")
    async with observe(secure.host, secure.port, tls=tls) as watcher:
        await watcher.publish(EVENT, Note(n=1), **ME, device="ram")


def test_missing_and_broken_certificate_files_are_named(keys: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.crt"
    broken.write_text("no certificate")
    for ca, cert in ((tmp_path / "absent.crt", None), (broken, None), (keys / "ca.crt", broken)):
        with pytest.raises(UsageError, match=re.escape(str(cert or ca))):
            tls_context(ca, cert)


def test_the_example_configuration_is_one_that_mosquitto_takes(keys: Path, tmp_path: Path) -> None:
    """Only its paths and its port are changed."""
    (tmp_path / "acl").write_text(acl([EVENT], {"s1": {"press-4": []}}))
    words = {
        "/etc/mosquitto/certs/ca.crt": keys / "ca.crt",
        "/etc/mosquitto/certs/broker.crt": keys / "broker.crt",
        "/etc/mosquitto/certs/broker.key": keys / "broker.key",
        "/etc/mosquitto/shoal.acl": tmp_path / "acl",
        "/var/lib/mosquitto/": f"{tmp_path}/",
    }
    lines = []
    for line in (REPO / "deploy/mosquitto/mosquitto.conf").read_text().splitlines():
        if line.startswith(("listener", "allow_anonymous", "password_file", "acl_file")):
            continue  # the Broker writes these itself
        for old, new in words.items():
            line = line.replace(old, str(new))
        lines.append(line)
    text = "\n".join(lines)
    assert "/etc/" not in "".join(line for line in lines if not line.startswith("#"))
    with Broker(directory=tmp_path / "b", persistence=False, passwords={"ann": "w"}, acl="", extra=text) as broker:
        context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        asyncio.run(_handshake(broker, context))


async def _handshake(broker: Broker, context: ssl.SSLContext) -> None:
    _, writer = await asyncio.open_connection(broker.host, broker.port, ssl=context)
    writer.close()

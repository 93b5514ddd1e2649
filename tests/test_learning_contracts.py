"""What learning sends: one vector with layers as views, updates in safetensors, and signatures over the very bytes."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load

from messages.contracts import Envelope
from messages.errors import BadMessage, ConfigError, UsageError
from messages.learning import PART_BYTES, Artefact, Feature, Interface, Release, Update, UpdateHead
from messages.network import Network
from messages.signing import SigningKey, public_key, sign, verify
from messages.updates import BLOCK, CODECS, delta_of, pack, signed, signer

KEY = SigningKey.from_seed(bytes(range(32)))
KEYS = {"humid": public_key(KEY.public)}
NETWORKS = st.builds(
    Network,
    inputs=st.integers(1, 20),
    hidden=st.lists(st.integers(1, 30), max_size=3).map(tuple),
    outputs=st.integers(1, 8),
    dueling=st.booleans(),
)


def head(codec: str = "float16") -> UpdateHead:
    return UpdateHead(model="cell", round=7, base="0" * 64, at=1, codec=codec, samples=120)


def release() -> Envelope[Release]:
    body = Release(
        model="cell",
        version=4,
        stage="fleet",
        interface=Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"]),
        graph=Artefact.of(b"graph"),
        made_at=1,
        note='"sig":"humid:' + "A" * 86 + '"}',
    )
    return Envelope[Release](key="cell", target="s1/humid", counter=1, valid_until=9, body=body)


@given(NETWORKS)
def test_the_layers_of_a_network_fill_its_vector_without_gaps_and_the_head_is_last(network: Network) -> None:
    at = 0
    for one in network.slices:
        assert one.start == at < one.stop
        at = one.stop
    assert at == network.size
    heads = [one.start for one in network.slices if not one.name.startswith("body")]
    assert (
        min(heads)
        == network.shared
        == network.size - sum(one.stop - one.start for one in network.slices[-len(heads) :])
    )


def test_the_published_network_has_18692_parameters() -> None:
    assert Network(inputs=12, hidden=(128, 128), outputs=4).size == 18_692


@given(st.sampled_from(CODECS), st.integers(1, 300), st.integers(0, 2**31))
def test_what_was_packed_comes_out_as_exactly_as_its_codec_says(codec: str, size: int, seed: int) -> None:
    delta = np.random.default_rng(seed).normal(0, 1e-2, size).astype(np.float32)
    update = Update.decode(signed(head(codec), delta, KEY, name="humid").encode())
    assert signer(update, KEYS) == "humid"
    found = delta_of(update)
    largest = [np.abs(delta[k : k + BLOCK]).max() for k in range(0, size, BLOCK)]
    allowed = {
        "float32": np.zeros(size),
        "float16": np.abs(delta) * 2**-11 + 2**-24,
        "int8": np.repeat(largest, BLOCK)[:size] / 127 * 0.5001 + 1e-9,
    }[codec]
    assert found.dtype == np.float32 and (np.abs(found - delta) <= allowed).all()


def test_an_update_is_a_safetensors_file_that_anybody_can_read() -> None:
    delta = np.arange(5, dtype=np.float32)
    assert load(signed(head("float32"), delta, KEY, name="humid").encode())["delta"].tolist() == delta.tolist()


@pytest.mark.parametrize("codec", CODECS)
def test_no_bit_of_an_update_can_be_changed_unnoticed(codec: str) -> None:
    payload = signed(head(codec), np.ones(3, np.float32), KEY, name="humid").encode()
    for place in range(8 * len(payload)):
        spoiled = bytearray(payload)
        spoiled[place // 8] ^= 1 << place % 8
        with pytest.raises(BadMessage):
            signer(Update.decode(bytes(spoiled)), KEYS)


def test_no_bit_of_a_signed_release_can_be_changed_unnoticed() -> None:
    payload = sign(release(), KEY, name="humid")
    assert verify(payload, KEYS) == "humid"
    assert Envelope[Release].decode(payload).body == release().body
    for place in range(8 * len(payload)):
        spoiled = bytearray(payload)
        spoiled[place // 8] ^= 1 << place % 8
        with pytest.raises(BadMessage):
            verify(bytes(spoiled), KEYS)


def test_a_signature_covers_fields_this_version_does_not_know() -> None:
    unsigned = release().encode().replace(b'{"key"', b'{"news":1,"key"', 1)
    text = base64.urlsafe_b64encode(KEY.sign(unsigned)).rstrip(b"=").decode()
    payload = unsigned[: -len(b'""}')] + f'"humid:{text}"}}'.encode()
    assert verify(payload, KEYS) == "humid"
    with pytest.raises(BadMessage, match="changed"):
        verify(payload.replace(b'"news":1', b'"news":2'), KEYS)


def test_who_did_not_sign_is_named() -> None:
    with pytest.raises(BadMessage, match="not signed"):
        verify(release().encode(), KEYS)
    with pytest.raises(BadMessage, match="'stranger', whose key is not known here; known are humid"):
        verify(sign(release(), KEY, name="stranger"), KEYS)
    other = {"humid": public_key(SigningKey.generate().public)}
    with pytest.raises(BadMessage, match="its key is another one"):
        verify(sign(release(), KEY, name="humid"), other)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_update_or_a_bad_message(data: bytes) -> None:
    try:
        delta_of(Update.decode(data))
    except BadMessage as error:
        assert str(error)


@pytest.mark.parametrize("codec", ["int4", "float32"])
def test_a_file_that_is_not_as_its_head_says_is_refused(codec: str) -> None:
    data = signed(head("float16"), np.ones(3, np.float32), KEY, name="humid").data
    spoiled = data.replace(b"float16", codec.encode().ljust(7))
    with pytest.raises(BadMessage):
        delta_of(Update.decode(spoiled))
    with pytest.raises(UsageError, match="there are float32"):
        pack(np.ones(3, np.float32), "int4")


def test_a_key_is_made_once_for_its_owner_alone_and_a_broken_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "node.key"
    key = SigningKey.at(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.at(path).public == key.public
    path.write_text("not a key")
    with pytest.raises(ConfigError, match="move it away"):
        SigningKey.at(path)
    with pytest.raises(ConfigError, match="may write"):
        SigningKey.at(path / "below" / "node.key")


def test_a_key_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut at the first start leaves an empty one, and the cloud knows a key that nobody has."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(f"{Path(f'/proc/self/fd/{handle}').readlink().name}, {(tmp_path / 'node.key').exists()}")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    SigningKey.at(tmp_path / "node.key")
    assert synced == ["node.key.new, False", f"{tmp_path.name}, True"]


def test_an_artefact_knows_how_many_parts_it_has() -> None:
    data = io.BytesIO(bytes(PART_BYTES + 1)).getvalue()
    assert Artefact.of(data).parts == 2 and Artefact.of(b"x").parts == 1

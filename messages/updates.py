"""A node's update on the wire: one safetensors file, signed, never a pickle.

    update = signed(head, delta, key, name="press-4")            # on the node
    signer(update, keys) == "press-4"; delta = delta_of(update)  # in the cloud

The file's metadata hold `update` (the head, JSON) and `sig` (Ed25519 of all bytes of the file, with a signature of
zeros in its place). Codecs of what changed since the base:

float32  as it is
float16  the delta in half precision (IEEE 754); 2.5e-4 of each number, below 6e-8 of nothing
int8     blocks of `BLOCK` numbers share a float32 scale: max |delta| / 127 (as ONNX's and GGML's block quantisation)

Bounds: a message's `MAX_BYTES`, `MAX_PARAMETERS` numbers; checked before anything is allocated.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import TypeAlias, get_args

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from messages.errors import BadMessage, UsageError
from messages.learning import Codec, Update, UpdateHead, header_of
from messages.network import MAX_PARAMETERS
from messages.signing import SigningKey

BLOCK = 64
"""Numbers that share a scale in int8."""
CODECS: tuple[str, ...] = get_args(Codec)
Vector: TypeAlias = NDArray[np.float32]
"""(P,) parameters, or what changed of them."""

_SIG = re.compile(rb'"sig":"([a-z0-9][a-z0-9_-]{0,31}):([A-Za-z0-9_-]{85}[AQgw])"')
"""One spelling only: of the last character two bits count, and the others are zero."""
_BLANK = b"A" * 86
_WANTED = {
    "float32": {"delta": "float32"},
    "float16": {"delta": "float16"},
    "int8": {"delta": "int8", "scale": "float32"},
}


def signed(head: UpdateHead, delta: Vector, key: SigningKey, *, name: str) -> Update:
    """An update of `delta` in the codec its head names, signed as `name`."""
    metadata = {"update": head.encode().decode(), "sig": f"{name}:{_BLANK.decode()}"}
    blank = save(pack(delta, head.codec), metadata)
    text = base64.urlsafe_b64encode(key.sign(blank)).rstrip(b"=")
    found = _SIG.search(blank, 8)
    assert found is not None
    return Update(head=head, data=blank[: found.start(2)] + text + blank[found.end(2) :])


def signer(update: Update, keys: Mapping[str, Ed25519PublicKey]) -> str:
    """Who of `keys` signed this file; BadMessage if nobody did."""
    payload = update.data
    found = _SIG.search(header_of(payload))
    if not found:
        raise BadMessage("Update: not signed")
    name = found[1].decode()
    if name not in keys:
        raise BadMessage(f"Update: signed by {name!r}, whose key is not known here")
    at = 8 + found.start(2)
    try:
        keys[name].verify(base64.urlsafe_b64decode(found[2] + b"=="), payload[:at] + _BLANK + payload[at + 86 :])
    except (InvalidSignature, ValueError):
        raise BadMessage(f"Update: not signed by {name!r}: the bytes were changed, or its key is another one") from None
    return name


def pack(delta: Vector, codec: str) -> dict[str, NDArray[np.generic]]:
    """`delta` (finite) as the tensors of a codec; UsageError if there is no such codec."""
    if codec == "float32":
        return {"delta": delta.astype("<f4")}
    if codec == "float16":
        return {"delta": np.clip(delta, -65504, 65504).astype("<f2")}
    if codec != "int8":
        raise UsageError(f"codec {codec!r}: there are {', '.join(CODECS)}")
    blocks = np.zeros((-(-len(delta) // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[: len(delta)] = delta
    scale = np.abs(blocks).max(axis=1) / 127
    whole = np.rint(blocks / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    return {"delta": whole.reshape(-1)[: len(delta)], "scale": scale.astype("<f4")}


def delta_of(update: Update) -> Vector:
    """The delta, (P,) float32; BadMessage if the file is not as its head says. Numbers that are none stay so."""
    try:
        tensors = load(update.data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadMessage(f"Update: not a safetensors file ({str(error)[:200]})") from None
    codec = update.head.codec
    wanted = _WANTED.get(codec)
    if wanted is None:
        raise BadMessage(f"Update: codec {codec!r}; there are {', '.join(CODECS)}")
    if {name: str(one.dtype) for name, one in tensors.items() if one.ndim == 1} != wanted or len(tensors) > len(wanted):
        raise BadMessage(f"Update: of codec {codec} the vectors {wanted} are expected")
    delta = tensors["delta"].astype(np.float32)
    if len(delta) > MAX_PARAMETERS:
        raise BadMessage(f"Update: {len(delta)} parameters, at most {MAX_PARAMETERS}")
    if codec == "int8":
        scale = tensors["scale"]
        if len(scale) != -(-len(delta) // BLOCK):
            raise BadMessage(f"Update: a scale for every {BLOCK} numbers is expected")
        delta *= np.repeat(scale.astype(np.float32), BLOCK)[: len(delta)]
    return delta

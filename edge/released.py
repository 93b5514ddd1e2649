"""Whether a release may run here: first by what it says, then by its bytes. Pure.

    envelope = opened(payload, keys)                                # whose signature is good
    permitted(envelope, standing, targets=…, now=…)                 # for this node, newer, of a fitting version
    policy = sound(envelope.body, graph, parameters)                # ready to decide

Each raises a BadMessage that says what is wrong and what to do; nothing is half accepted. The signature is looked at
before anything inside is believed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.graphs import checked
from edge.policy import F32, NONE, Engine, Policy
from messages.contracts import Envelope
from messages.errors import BadMessage
from messages.learning import Release
from messages.network import MAX_PARAMETERS
from messages.signing import verify

Released = Envelope[Release]
STAGES = ("canary", "fleet")
CLOSE = 1e-5
"""Two ways to compute a policy agree within this, of values around 1; of larger ones, within this share."""


@dataclass(frozen=True)
class Standing:
    """What is known of a model here: the counter that was answered last, and what runs."""

    counter: int = 0
    version: int | None = None
    sha256: str | None = None
    """of the running version's parameters, or of its graph"""


def opened(payload: bytes, keys: Mapping[str, Ed25519PublicKey]) -> Released:
    """The release in these bytes, if one of `keys` signed them."""
    verify(payload, keys)
    return Released.decode(payload)


def permitted(envelope: Released, standing: Standing, *, model: str, targets: Collection[str], now: int) -> None:
    """It is meant for this node, in time, new, and of a version that may follow the one that runs."""
    body = envelope.body
    if not model == envelope.key == body.model:
        raise BadMessage(f"release of {body.model!r} under the name {model!r}; release it again")
    if envelope.target not in targets:
        raise BadMessage(f"release for {envelope.target!r}, not for this node")
    if now >= envelope.valid_until:
        raise BadMessage("release no longer valid; release it again")
    if envelope.counter <= standing.counter:
        raise BadMessage(f"release {envelope.counter} is not newer than {standing.counter}, which was answered")
    if body.stage not in STAGES:
        raise BadMessage(f"stage {body.stage!r} is not known here; there are {', '.join(STAGES)}")
    if standing.version is not None and body.version < standing.version and body.instead_of != standing.version:
        raise BadMessage(
            f"version {body.version} is older than {standing.version}, which runs; name it in instead_of to go back"
        )
    if body.version == standing.version and sha256_of(body) != standing.sha256:
        raise BadMessage(f"version {body.version} runs here with other bytes; give these a version of their own")
    _shaped(body)


def sha256_of(body: Release) -> str:
    """What tells a version's bytes: of its parameters, or of its graph alone."""
    return (body.parameters or body.graph).sha256


def sound(body: Release, graph: bytes, parameters: bytes | None, *, compare: bool = True) -> Policy:
    """The policy of these bytes; BadMessage if the graph is not one that may run, or does not decide as it should.

    `graph` and `parameters` are what their digests say. `compare`: where onnxruntime is, the graph must compute what
    the release's network does.
    """
    _shaped(body)
    network = body.network
    checked(
        graph,
        inputs=len(body.interface.features),
        parameters=0 if network is None else network.size,
        outputs=len(body.interface.actions),
    )
    vector = None if parameters is None else np.frombuffer(parameters, "<f4").astype(np.float32)

    def policy(engine: Engine) -> Policy:
        return Policy.of(body.interface, graph, parameters=vector, network=network, version=body.version, engine=engine)

    ours = policy("auto")
    if not decides(ours):
        raise BadMessage("its answers are not finite; train and release it again")
    if compare and ours.engine == "numpy":
        theirs = policy("onnxruntime")
        for state in _probes(ours):
            values = ours.values(state)
            if np.abs(values - theirs.values(state)).max() > CLOSE * max(1.0, float(np.abs(values).max())):
                raise BadMessage("the graph computes something else than the network it is released with")
    return ours


def decides(policy: Policy) -> bool:
    """Is its answer a number in states that are tried? What it counted so far is forgotten."""
    with np.errstate(all="ignore"):
        finite = all(policy.decide(state) != NONE for state in _probes(policy))
    policy.decisions = policy.non_finite = 0
    return finite


def _shaped(body: Release) -> None:
    """What it says of its parts fits together."""
    if len(set(body.interface.actions)) < len(body.interface.actions):
        raise BadMessage("an action is named twice in the interface")
    if (body.network is None) != (body.parameters is None):
        raise BadMessage("parameters need a network, and a network parameters; a graph alone has its weights inside")
    if body.network is None or body.parameters is None:
        if body.shared:
            raise BadMessage("a graph without a network shares no parameters: leave `shared` out")
        return
    size = body.network.size
    if size > MAX_PARAMETERS or body.parameters.size != 4 * size:
        raise BadMessage(
            f"parameters of {body.parameters.size} bytes; the network has {size}, at most {MAX_PARAMETERS}"
        )
    if body.shared > size:
        raise BadMessage(f"shares {body.shared} of {size} parameters")


def _probes(policy: Policy) -> F32:
    """(8, S) states to try: the corners, the middle, and some at random, always the same."""
    width = len(policy.interface.features)
    some = np.random.default_rng(0).random((5, width), np.float32)
    return np.concatenate([np.full((1, width), k, np.float32) for k in (0, 0.5, 1)] + [some])

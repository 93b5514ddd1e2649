"""Who said it: Ed25519 signatures (RFC 8032) over the bytes that were sent, never over bytes written again.

    key = SigningKey.generate(); key.public        # 43 characters of base64url: what others are told
    payload = sign(envelope, key)                  # the envelope's JSON, with `sig` filled in
    verify(payload, {"cloud": public})             # BadMessage says what is wrong; else the name of who signed

An envelope's `sig` is its last field. What is signed are the payload's very bytes with an empty `sig`, so that fields
of newer peers are covered too. The name of the signer is part of the signature: `name:signature`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from messages.errors import BadMessage, ConfigError
from messages.message import Message

_SIG = re.compile(rb'"sig":"((?:[a-z0-9][a-z0-9_-]{0,31}:[A-Za-z0-9_-]{86})?)"\}\Z')


@dataclass(frozen=True)
class SigningKey:
    """A private key. It is written to a file only its owner may read, and never sent."""

    _key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> SigningKey:
        """A new one, from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The one of these 32 bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def at(cls, path: Path) -> SigningKey:
        """The key of this file, made and kept there (mode 600) if it is not yet; on the disk when this returns."""
        try:
            if not path.exists():
                cls._make(path)
            text = path.read_text(encoding="ascii").strip()
        except UnicodeDecodeError:
            text = ""
        except OSError as error:
            cure = "name a folder that this user may write, and a key that is this user's own"
            raise ConfigError(f"{path}: cannot be read or made ({error.strerror}); {cure}") from None
        try:
            return cls.from_seed(_bytes(text, 32))
        except ValueError as error:
            cure = "put a copy of it back; without one move it away, a new one is made, and others must be told it"
            raise ConfigError(f"{path}: not a key ({error}); {cure}") from None

    @classmethod
    def _make(cls, path: Path) -> None:
        """A new one: its bytes are on the disk before its name is, so that no power cut leaves half of a key."""
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = cls.generate()._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        aside = path.with_name(path.name + ".new")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(base64.urlsafe_b64encode(raw).rstrip(b"=") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @property
    def public(self) -> str:
        """What others verify with, base64url."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(data)


def public_key(text: str) -> Ed25519PublicKey:
    """A key as `SigningKey.public` spells it; ValueError if it is none."""
    return Ed25519PublicKey.from_public_bytes(_bytes(text, 32))


def sign(message: Message, key: SigningKey, *, name: str) -> bytes:
    """The payload of a message whose last field is `sig`, signed by `key` as `name`."""
    unsigned = message.model_copy(update={"sig": ""}).encode()
    if not _SIG.search(unsigned):
        raise TypeError(f"{type(message).__name__}: `sig` must be its last field")
    text = base64.urlsafe_b64encode(key.sign(unsigned)).rstrip(b"=").decode()
    return _SIG.sub(f'"sig":"{name}:{text}"}}'.encode(), unsigned)


def verify(payload: bytes, keys: Mapping[str, Ed25519PublicKey]) -> str:
    """Who of `keys` signed these bytes; BadMessage if nobody did."""
    found = _SIG.search(payload)
    if not found or not found[1]:
        raise BadMessage("not signed; its owner must be given a key")
    name, _, text = found[1].decode().partition(":")
    if name not in keys:
        raise BadMessage(
            f"signed by {name!r}, whose key is not known here; known are {', '.join(sorted(keys)) or 'none'}"
        )
    unsigned = payload[: found.start()] + b'"sig":""}'
    try:
        keys[name].verify(_bytes(text, 64), unsigned)
    except (InvalidSignature, ValueError):
        raise BadMessage(f"not signed by {name!r}: the bytes were changed, or its key is another one") from None
    return name


def _bytes(text: str, size: int) -> bytes:
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if len(raw) != size or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text.rstrip("="):
        raise ValueError(f"{size} bytes in base64url are expected")
    return raw

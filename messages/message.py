"""The base of every contract: frozen, no NaN, unknown fields ignored, and bounded before it is parsed.

`decode` refuses more than `MAX_BYTES` unread, then reads JSON and contract together (the parser bounds
nesting by itself). Every refusal is a BadMessage that says why.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from messages.errors import BadMessage

MAX_BYTES = 4 * 1024 * 1024
"""Largest payload decoded; larger ones are refused unread."""


class Message(BaseModel):
    """What is in the bytes. Peers may be newer, so unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    content_type: ClassVar[str] = "application/json"

    def encode(self) -> bytes:
        """The payload, UTF-8 JSON; fields at their default None are left out."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """The message in `payload`; BadMessage if it breaks the contract."""
        if len(payload) > MAX_BYTES:
            raise BadMessage(f"{cls.__name__}: {len(payload)} bytes, at most {MAX_BYTES} are read")
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "payload"
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise BadMessage(f"{cls.__name__}.{place}: {first['msg']}{more}") from None

"""One way to say which broker and who we are to it: the same table in every process's settings.

broker: BrokerSettings = Field(BrokerSettings(), description="the site's broker")
bus = bus_to(settings.broker, client_id="s1-press-4", will=…)
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from messages.bus import Bus, Will, tls_context
from messages.settings import Section

SESSION_S = 7 * 24 * 3600
"""The broker keeps what came for us while we were away for so long."""


class BrokerSettings(Section):
    """One MQTT broker and who we are to it."""

    host: str = Field("127.0.0.1", min_length=1, description="name or address")
    port: int = Field(1883, gt=0, lt=65536, description="8883 is usual with TLS")
    username: str | None = Field(None, description="as the access rules name us; absent: anonymous, or by certificate")
    password: SecretStr | None = Field(None, description="of that user; better in the environment than in a file")
    ca: Path | None = Field(None, description="certificate that vouches for the broker; given: TLS is used")
    cert: Path | None = Field(None, description="our certificate, where the broker asks for one")
    key: Path | None = Field(None, description="its private key")
    keepalive_s: int = Field(20, ge=5, le=3600, description="after 1.5 times this silence the broker tells the will, s")

    @model_validator(mode="after")
    def _complete(self) -> BrokerSettings:
        if self.password is not None and self.username is None:
            raise ValueError("password without username: give both")
        if (self.cert is None) != (self.key is None):
            raise ValueError("give cert and key, both or neither")
        if self.cert is not None and self.ca is None:
            raise ValueError("cert without ca: name the certificate that vouches for the broker")
        return self


def bus_to(
    broker: BrokerSettings,
    client_id: str,
    will: Will | None = None,
    *,
    session_expiry_s: int = SESSION_S,
    receive_maximum: int = 1000,
) -> Bus:
    """A session under a fixed name: whoever takes it over fences off its predecessor. Few large messages may wait."""
    return Bus(
        broker.host,
        broker.port,
        client_id=client_id,
        username=broker.username,
        password=broker.password.get_secret_value() if broker.password else None,
        tls=tls_context(broker.ca, broker.cert, broker.key) if broker.ca else None,
        will=will,
        session_expiry_s=session_expiry_s,
        receive_maximum=receive_maximum,
        keepalive_s=broker.keepalive_s,
    )

"""The peer of `agent.py`: whatever a device says, the same bytes come back. paho, nothing else: no decoding, no disk.

python benchmarks/_echo.py PORT RAW_TOPIC ACT_TOPIC
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


def main() -> None:
    """Until it is killed."""
    port, heard, said = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    client = Client(CallbackAPIVersion.VERSION2, client_id="echo", protocol=MQTTProtocolVersion.MQTTv5)

    def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
        client.publish(said, bytes(message.payload), qos=1)

    def on_connect(*_: Any) -> None:
        sock = client.socket()
        assert isinstance(sock, socket.socket)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.subscribe(heard, qos=1)

    def on_subscribe(*_: Any) -> None:
        print("ready", flush=True)

    client.on_message, client.on_connect, client.on_subscribe = on_message, on_connect, on_subscribe
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main()

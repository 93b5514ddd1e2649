"""compose.yaml and deploy/ as Compose would use them, for tests on a machine without a container engine.

    checkout = with_secrets(tmp_path)              # a copy of deploy/, `deploy/secrets.sh` run in it
    Stack(checkout, …).start("cloud")              # a service's own command, files and environment, as a process

A container's paths are put where the copy has them, host names become 127.0.0.1 and ports free ones; nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from messages.process import die_with_parent

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def compose() -> dict[str, Any]:
    """compose.yaml, anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def services() -> dict[str, dict[str, Any]]:
    """Its services."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def with_secrets(directory: Path) -> Path:
    """A checkout's deploy/ in `directory`, its secrets made."""
    shutil.copytree(DEPLOY, directory / "deploy", ignore=shutil.ignore_patterns("run"))
    for name in ("firmware_sim/plants", "examples"):
        shutil.copytree(ROOT / name, directory / name)
    make_secrets(directory)
    return directory


def make_secrets(directory: Path, *args: str) -> str:
    """Run the script; what it said."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    done = subprocess.run(
        ["sh", "deploy/secrets.sh", *args],
        cwd=directory,
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def env_of(directory: Path) -> dict[str, str]:
    """The .env that was made."""
    lines = (directory / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def credentials(directory: Path) -> dict[str, str]:
    """MQTT user → password."""
    lines = (directory / "deploy/run/credentials").read_text().splitlines()
    return dict(line.rsplit(":", 1) for line in lines)


def expanded(environment: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """As Compose interpolates it; KeyError: not in .env."""
    pattern = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")
    return {key: pattern.sub(lambda match: env[match[1]], value) for key, value in environment.items()}


@dataclass
class Stack:
    """Services of compose.yaml as plain processes below `checkout`."""

    checkout: Path
    mqtt_port: int
    store: str
    """what stands in cloud.toml's [store] instead: the machine that tests has another InfluxDB"""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = env_of(self.checkout)

    def start(self, name: str) -> None:
        """A service of Shoal; its log is `<name>.log`."""
        service = services()[name]
        places = self._places(name, service)
        told = {key: self._here(value, places) for key, value in expanded(service["environment"], self.env).items()}
        for key in [key for key in told if key.endswith("_STORE__TOKEN")]:
            del told[key]  # InfluxDB 1.x asks for none
        if "entrypoint" in service:
            told |= {"MQTT_HOST": "127.0.0.1", "MQTT_PORT": str(self.mqtt_port)}
            command = [sys.executable, *(self._here(one, places) for one in service["entrypoint"][1:])]
        else:
            command = [sys.executable, "-m", "shoal", *(self._here(one, places) for one in service["command"])]
        with self.log_of(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **told},
                cwd=self.checkout,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def start_broker(self) -> None:
        """Mosquitto with the shipped configuration, port and paths put elsewhere."""
        run = self.checkout / "mosquitto"
        (run / "data").mkdir(parents=True)
        for kind in ("passwd", "acl"):
            shutil.copy(self.checkout / f"deploy/run/mosquitto.{kind}", run / f"shoal.{kind}")
        text = (self.checkout / "deploy/mosquitto/compose.conf").read_text()
        text = text.replace("listener 1883", f"listener {self.mqtt_port} 127.0.0.1")
        text = text.replace("/mosquitto/run/", f"{run}/").replace("/mosquitto/data/", f"{run}/data/")
        if os.geteuid() == 0:
            text += "user root\n"  # the files of the test are root's
        (run / "mosquitto.conf").write_text(text)
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "mosquitto is not installed"
        with self.log_of("mosquitto").open("wb") as log:
            self.processes["mosquitto"] = subprocess.Popen(
                [program, "-c", str(run / "mosquitto.conf")],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def log_of(self, name: str) -> Path:
        """Where a process logs."""
        return self.checkout / f"{name}.log"

    def stop(self) -> dict[str, int]:
        """SIGTERM to all, the broker last; exit codes."""
        names = sorted(self.processes, key=lambda name: name == "mosquitto")
        codes = {}
        for name in names[:-1]:
            self.processes[name].terminate()
        for name in names:
            self.processes[name].terminate()
            try:
                codes[name] = self.processes[name].wait(60)
            except subprocess.TimeoutExpired:
                self.processes[name].kill()
                codes[name] = self.processes[name].wait()
        return codes

    def _places(self, name: str, service: Mapping[str, Any]) -> dict[str, str]:
        """Path in the container → path here; settings files are copied and put right."""
        places = {}
        for volume in service.get("volumes", []):
            source, inside, *_ = volume.split(":")
            place = self.checkout / source if source.startswith("./") else self.checkout / "volumes" / source
            if not source.startswith("./"):
                place.mkdir(parents=True, exist_ok=True)
            places[inside] = str(place)
        for inside, there in list(places.items()):
            if inside.endswith(".toml") and not inside.endswith("plant.toml"):
                text = Path(there).read_text()
                for one, other in places.items():
                    text = text.replace(one, other)
                text = text.replace('host = "mosquitto"', f'host = "127.0.0.1"\nport = {self.mqtt_port}')
                text = re.sub(r"\[store\]\n(.+\n)+", f"[store]\n{self.store}\n", text)
                copy = self.checkout / f"{name}.toml"
                copy.write_text(text)
                places[inside] = str(copy)
        return places

    def _here(self, text: str, places: Mapping[str, str]) -> str:
        for inside, there in places.items():
            text = text.replace(inside, there)
        return text

"""The ground: what a fresh machine is told and given, without touching this one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("sh", "cat", "cksum", "dirname", "id", "grep", "ls", "rm", "tee", "chmod", "uname", "env", "mktemp", "tail")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that setting up reads, in a directory of their own."""
    place = tmp_path / "checkout"
    (place / "deploy").mkdir(parents=True)
    for name in ("pyproject.toml", "requirements.lock", "deploy/setup.sh"):
        shutil.copy(ROOT / name, place / name)
    return place


def set_up(checkout: Path, tmp_path: Path, *args: str, programs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run setup.sh where only TOOLS and `programs` (name → shell script) are installed, and nobody answers."""
    binaries = tmp_path / "bin"
    binaries.mkdir(exist_ok=True)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (binaries / tool).unlink(missing_ok=True)
        (binaries / tool).symlink_to(found)
    for name, script in programs.items():
        (binaries / name).unlink(missing_ok=True)
        (binaries / name).write_text(f"#!/bin/sh\n{script}\n")
        (binaries / name).chmod(0o755)
    return subprocess.run(
        [str(binaries / "sh"), "deploy/setup.sh", *args],
        cwd=checkout,
        env={"PATH": str(binaries), "HOME": str(tmp_path), "CI": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def pretend_ready(checkout: Path, extra: str) -> None:
    """What setting up leaves behind."""
    bin_ = checkout / ".venv" / "bin"
    bin_.mkdir(parents=True)
    for name in ("python", "shoal"):
        (bin_ / name).write_text("#!/bin/sh\n")
        (bin_ / name).chmod(0o755)
    total = subprocess.run(
        "cat pyproject.toml requirements.lock | cksum", shell=True, cwd=checkout, capture_output=True
    )
    (checkout / ".venv" / f".shoal-{extra}").write_text(f"{checkout}\n{total.stdout.decode()}")


OLD_PYTHON = {"python3": "exit 1"}
NO_VENV = {
    "python3": """case "$*" in
        *version_info*%d*) echo 3.11 ;;
        *version_info*) exit 0 ;;
        --version) echo Python 3.11.2 ;;
        *) exit 1 ;;
    esac"""
}
NOT_ROOT = {"id": "echo 1000"}
NO_SUDO = {"sudo": "exit 1"}


def test_without_python_the_cure_is_named(checkout: Path, tmp_path: Path) -> None:
    done = set_up(checkout, tmp_path, "all", programs=OLD_PYTHON)
    assert done.returncode == 1
    assert "apt-get install python3 python3-venv" in done.stderr


def test_without_venv_the_cure_is_named_and_nothing_is_left(checkout: Path, tmp_path: Path) -> None:
    done = set_up(checkout, tmp_path, "all", programs={**NO_VENV, **NOT_ROOT, **NO_SUDO, "apt-get": "exit 1"})
    assert done.returncode == 1
    assert "sudo apt-get install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_second_run_does_nothing(checkout: Path, tmp_path: Path) -> None:
    pretend_ready(checkout, "dev")
    for extra in ("dev", "all", "edge"):
        done = set_up(checkout, tmp_path, extra, programs={})
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_demo_installed_is_not_enough_for_the_tests(checkout: Path, tmp_path: Path) -> None:
    pretend_ready(checkout, "all")
    assert set_up(checkout, tmp_path, "all", programs=OLD_PYTHON).returncode == 0
    assert "dev" in set_up(checkout, tmp_path, "dev", programs=OLD_PYTHON).stderr


def test_changed_dependencies_are_installed_again(checkout: Path, tmp_path: Path) -> None:
    pretend_ready(checkout, "all")
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert "installing the locked dependencies" in set_up(checkout, tmp_path, "all", programs=OLD_PYTHON).stderr


@pytest.mark.skipif(
    any(Path(place, "mosquitto").exists() for place in ("/usr/local/sbin", "/opt/homebrew/sbin")),
    reason="Mosquitto is where this test cannot hide it",
)
@pytest.mark.parametrize(
    ("programs", "says"),
    [({}, "there is no apt-get here"), ({"apt-get": "exit 1", **NOT_ROOT, **NO_SUDO}, "installing it needs root")],
)
def test_without_a_way_to_install_mosquitto_the_cure_is_named(
    checkout: Path, tmp_path: Path, programs: dict[str, str], says: str
) -> None:
    pretend_ready(checkout, "all")
    script = checkout / "deploy" / "setup.sh"
    script.write_text(script.read_text().replace("$PATH:/usr/sbin:", "$PATH:"))
    done = set_up(checkout, tmp_path, "all", "mosquitto", programs=programs)
    assert done.returncode == 1
    assert says in done.stderr and "apt-get install mosquitto" in done.stderr


def test_the_tests_get_their_stores_as_packages_whose_services_stay_off(checkout: Path, tmp_path: Path) -> None:
    pretend_ready(checkout, "dev")
    binaries, said = tmp_path / "bin", tmp_path / "said"
    script = checkout / "deploy" / "setup.sh"
    text = script.read_text().replace("$PATH:/usr/sbin:", "$PATH:").replace("/run/systemd/system", str(tmp_path))
    script.write_text(text.replace("/usr/sbin/policy-rc.d", f"{tmp_path}/policy"))
    install = f"""echo "apt-get $*" >>{said}
        case "$*" in *install*) ls {tmp_path}/policy >>{said}
            for name in mosquitto influxd victoria-metrics strace; do /bin/ln -s /bin/true {binaries}/$name; done ;;
        esac"""
    programs = {"apt-get": install, "id": "echo 0", "systemctl": f'echo "systemctl $*" >>{said}'}
    done = set_up(checkout, tmp_path, "dev", "stores", programs=programs)
    assert done.returncode == 0, done.stderr
    assert "InfluxDB 1.x" in done.stderr and "VictoriaMetrics" in done.stderr and "neither started" in done.stderr
    calls = said.read_text()
    assert "mosquitto influxdb victoria-metrics" in calls and f"{tmp_path}/policy" in calls
    for name in ("mosquitto", "influxdb", "victoria-metrics"):
        assert f"systemctl stop {name}.service" in calls and f"systemctl disable {name}.service" in calls
    assert not (tmp_path / "policy").exists()
    said.unlink()
    assert set_up(checkout, tmp_path, "dev", "stores", programs=programs).stderr == ""  # a second run does nothing
    assert not said.exists()


def test_an_unknown_extra_is_refused(checkout: Path, tmp_path: Path) -> None:
    done = set_up(checkout, tmp_path, "everything", programs={})
    assert done.returncode == 1 and "unknown extra" in done.stderr


def test_the_lock_names_versions_only() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [row for row in lines if row and not row.startswith("#")]
    strange = [row for row in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+( ; [a-z_<>=!'\" 0-9.]+)?", row, re.I)]
    assert len(pins) > 20 and not strange


def test_the_lock_pins_every_direct_dependency_on_every_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    rows = (ROOT / "requirements.lock").read_text().splitlines()
    locked = [Requirement(row) for row in rows if row and not row.startswith("#")]
    for version in ("3.11", "3.12", "3.13"):
        here = {**default_environment(), "python_version": version, "python_full_version": f"{version}.0"}
        pins = {one.name: one for one in locked if one.marker is None or one.marker.evaluate(here)}  # type: ignore[arg-type]
        for name in wanted:
            need = Requirement(name)
            if need.name == "shoal":
                continue
            pin = pins[need.name.lower()]
            assert need.specifier.contains(str(pin.specifier).removeprefix("==")), name


def test_scripts_are_valid_and_may_be_run() -> None:
    for name in ("deploy/setup.sh", "deploy/lock.sh", ".ci/run"):
        shell = "bash" if name == ".ci/run" else "sh"
        assert subprocess.run([shell, "-n", str(ROOT / name)]).returncode == 0
        assert os.access(ROOT / name, os.X_OK)

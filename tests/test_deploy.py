"""What is shipped to deploy Shoal, read as its tools read it: Compose, Docker, systemd, Mosquitto; no secret in it."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from deploy_rig import DEPLOY, ROOT, compose, credentials, env_of, expanded, make_secrets, services, with_secrets

from cloud.settings import CloudSettings
from edge.settings import EdgeSettings
from firmware_sim.settings import SimSettings
from messages.plant import load_plant
from messages.settings import variables

MISSING = "run first - sh deploy/secrets.sh"


# --- Compose ------------------------------------------------------------------------------------------------


def test_the_compose_file_fits_the_compose_specification() -> None:
    vendor = importlib.resources.files(pytest.importorskip("check_jsonschema", reason="pip install 'shoal[dev]'"))
    schema = json.loads((vendor / "builtin_schemas" / "vendor" / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(compose())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({**compose(), "services": {"a": {"imagee": "x"}}})


def test_compose_itself_reads_the_file_and_names_the_cure_where_secrets_are_missing(tmp_path: Path) -> None:
    tools = (["docker", "compose"], ["docker-compose"])
    there = [tool for tool in tools if shutil.which(tool[0]) and run([*tool, "version"], tmp_path).returncode == 0]
    if not there:
        pytest.skip("no Compose here: sudo apt-get install docker-compose")
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(text.replace("name: shoal\n", ""))  # version 1 does not know it
    bare = run([*there[0], "-f", "compose.yaml", "config"], tmp_path)
    assert bare.returncode != 0 and MISSING in bare.stderr
    with_secrets(tmp_path)
    read = run([*there[0], "-f", "compose.yaml", "config"], tmp_path)
    assert read.returncode == 0, read.stderr
    assert set(yaml.safe_load(read.stdout)["services"]) == set(services())


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=60)


def test_every_service_restarts_is_watched_and_has_a_pinned_image_and_no_privilege() -> None:
    for name, service in services().items():
        assert service["restart"] == ("no" if name == "store-init" else "unless-stopped"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, f"{name}: logs without a bound"
        image, _, tag = service["image"].partition(":")
        if "build" in service:
            assert (image, tag) == (f"shoal-{service['build']['args']['EXTRAS']}", "local"), name
            assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        else:
            assert re.fullmatch(r"\d+\.\d+\.\d+", tag), f"{name}: {image} is not pinned"
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_ports_are_open_to_this_host_alone() -> None:
    ports = {name: port for name, service in services().items() for port in service.get("ports", [])}
    assert ports.keys() == {"mosquitto", "influxdb", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in ports.values())


def test_no_secret_stands_in_the_repository_and_a_missing_one_is_named_with_its_cure() -> None:
    told = 0
    for name, service in services().items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN", key):
                assert re.fullmatch(rf"\$\{{[A-Z_]+:\?{re.escape(MISSING)}\}}", value), f"{name}: {key}={value}"
                told += 1
    assert told >= 10
    for path in [*DEPLOY.rglob("*"), ROOT / "Dockerfile", ROOT / "compose.yaml"]:
        if path.is_file() and "run" not in path.relative_to(ROOT).parts:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\$7\$101\$|(?i:password|token)\s*[=:]\s*[0-9a-f]{24}", text), path
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "/.env" in ignored and "/deploy/run/" in ignored


def test_every_file_a_service_mounts_is_shipped_or_made_by_the_secrets_script(tmp_path: Path) -> None:
    with_secrets(tmp_path)
    document = compose()
    mounted = [volume.split(":") for service in document["services"].values() for volume in service.get("volumes", [])]
    files = [source for source, *_ in mounted if source.startswith("./")]
    files += [secret["file"] for secret in document["secrets"].values()]
    for file in set(files):
        assert (ROOT / file).exists() or (tmp_path / file).exists(), file
    named = {source for source, *_ in mounted if not source.startswith("./")}
    assert named == set(document["volumes"]), "volumes declared and used differ"
    for source, _, *mode in mounted:
        assert source in named or mode == ["ro"], f"{source} is writable in a container"


def test_the_plant_files_nodes_are_the_edge_services_and_each_has_its_own_user_and_disk(tmp_path: Path) -> None:
    env = env_of(with_secrets(tmp_path))
    plant = load_plant(tmp_path / "deploy" / "run" / "plant.toml")
    edges = {name.removeprefix("edge-"): service for name, service in services().items() if name.startswith("edge-")}
    assert set(edges) == set(plant.nodes)
    for node, service in edges.items():
        told = expanded(service["environment"], env)
        assert told["SHOAL_EDGE_LOCAL__USERNAME"] == f"{plant.site}/{node}"
        assert told["SHOAL_EDGE_LOCAL__PASSWORD"] == credentials(tmp_path)[f"{plant.site}/{node}"]
        assert f"edge-{node}:/var/lib/shoal" in service["volumes"]


def test_the_settings_in_the_containers_are_known_to_their_processes(tmp_path: Path) -> None:
    env = env_of(with_secrets(tmp_path))
    kinds: list[tuple[str, Any]] = [("cloud", CloudSettings), ("sim", SimSettings), ("edge-firing", EdgeSettings)]
    for name, settings in kinds:
        service = services()[name]
        config = service["command"][2]
        source = next(volume.split(":")[0] for volume in service["volumes"] if f":{config}:" in volume)
        given = tomllib.loads((ROOT / source).read_text(encoding="utf-8"))
        known = variables(settings)
        for key, value in expanded(service["environment"], env).items():
            *tables, last = known[key]  # a KeyError: no such setting
            place = given
            for table in tables:
                place = place.setdefault(table, {})
            place[last] = json.loads(value) if value.startswith("[") else value
        settings.model_validate(given)


# --- secrets ------------------------------------------------------------------------------------------------


def test_secrets_are_readable_by_their_owner_alone_and_stay_when_the_script_runs_again(tmp_path: Path) -> None:
    with_secrets(tmp_path)
    before, users = env_of(tmp_path), credentials(tmp_path)
    assert len(set(before.values())) == len(before), "two secrets are alike"
    assert all(len(value) == 48 for key, value in before.items() if key != "SHOAL_SITE")
    for name in (".env", "deploy/run/credentials", "deploy/run/mosquitto.passwd", "deploy/run/mosquitto.acl"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((tmp_path / "deploy/run/plant.toml").stat().st_mode) == 0o644
    assert "docker compose up" in make_secrets(tmp_path)
    assert env_of(tmp_path) == before and credentials(tmp_path) == users


def test_without_its_tools_the_script_says_so_and_makes_no_env(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("run"))
    shutil.copytree(ROOT / "firmware_sim" / "plants", tmp_path / "firmware_sim" / "plants")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\nexit 1\n")  # also where there is one
    (tmp_path / "bin" / "docker").chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    done = subprocess.run(["sh", "deploy/secrets.sh"], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 1 and b"needs shoal (make setup) or a running Docker" in done.stderr
    assert not (tmp_path / ".env").exists()
    done = subprocess.run(["sh", "deploy/secrets.sh", "no.toml"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 1 and b"no.toml: no such plant file" in done.stderr


def test_a_new_device_of_the_plant_gets_a_password_and_the_others_keep_theirs(tmp_path: Path) -> None:
    with_secrets(tmp_path)
    users = credentials(tmp_path)
    plant = tmp_path / "plant.toml"
    text = (tmp_path / "deploy/run/plant.toml").read_text()
    plant.write_text(text.replace('id = "firing-4"', 'id = "firing-9"'))
    make_secrets(tmp_path, str(plant))
    after = credentials(tmp_path)
    assert after.keys() - users.keys() == {"ceramic/firing/firing-9"}
    assert users.items() <= after.items()


def test_every_user_of_the_access_rules_has_a_hash_and_no_password_is_kept_in_the_clear_beside_it(
    tmp_path: Path,
) -> None:
    with_secrets(tmp_path)
    rules = (tmp_path / "deploy/run/mosquitto.acl").read_text()
    hashes = dict(line.split(":", 1) for line in (tmp_path / "deploy/run/mosquitto.passwd").read_text().splitlines())
    assert set(re.findall(r"^user (.+)$", rules, re.M)) == set(hashes) == set(credentials(tmp_path))
    assert all(value.startswith("$7$") for value in hashes.values())


# --- the broker, systemd, Docker ------------------------------------------------------------------------------


def conf(name: str) -> dict[str, str]:
    lines = (DEPLOY / "mosquitto" / name).read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def test_both_brokers_refuse_strangers_and_have_finite_large_queues() -> None:
    for name in ("mosquitto.conf", "compose.conf"):
        settings = conf(name)
        assert settings["allow_anonymous"] == "false"
        assert {"password_file", "acl_file"} <= settings.keys()
        assert int(settings["max_queued_messages"]) >= 100_000
        assert 20 < int(settings["max_inflight_messages"]) <= 65_535
        assert 0 < int(settings["max_packet_size"]) <= 64 * 2**20
        assert settings["persistence"] == "true" and settings["set_tcp_nodelay"] == "true"
        assert "per_listener_settings" not in settings, "it drops queued messages of persistent sessions"
    limits = [key for key in conf("compose.conf") if key.startswith("max_")]
    assert all(conf("compose.conf")[key] == conf("mosquitto.conf")[key] for key in limits)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: sudo apt-get install systemd")
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        text = unit.read_text(encoding="utf-8")
        assert "Restart=on-failure" in text and "RestartPreventExitStatus=2" in text
        # The program and the user are not there on the machine that tests.
        there = text.replace("/opt/shoal/bin/shoal", "/bin/true")
        there = re.sub(r"^(User|Group)=.*\n", "", there, flags=re.M)
        path = tmp_path / unit.name.replace("@.", "@firing.")
        path.write_text(there)
        done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=30)
        ours = [line for line in done.stderr.splitlines() if unit.stem.split("@")[0] in line]
        assert done.returncode == 0 and not ours, done.stderr


def test_the_settings_the_guide_shows_for_a_node_are_valid_and_its_service_is_shipped() -> None:
    guide = (ROOT / "docs" / "guides" / "deploy.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```toml\n(.*?)```", guide, re.S)
    settings = EdgeSettings.model_validate(tomllib.loads(shown))
    unit = (DEPLOY / "systemd" / "shoal-edge@.service").read_text(encoding="utf-8").replace("%i", settings.node)
    assert f"StateDirectory={str(settings.data).removeprefix('/var/lib/')}\n" in unit
    assert f"--config /etc/shoal/{settings.node}.toml\n" in unit and f"/etc/shoal/{settings.node}.env\n" in unit
    assert set(re.findall(r"SHOAL_EDGE_\w+", guide)) <= set(variables(EdgeSettings)) | {"SHOAL_EDGE_"}


def test_systemd_would_refuse_a_misspelt_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: sudo apt-get install systemd")
    (tmp_path / "shoal-cloud.service").write_text("[Service]\nExecStart=/bin/true\nRestrat=always\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "shoal-cloud.service")], capture_output=True, text=True, timeout=30
    )
    assert "Restrat" in done.stderr


def instructions() -> Iterator[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, rest.strip()


def test_the_dockerfile_has_two_stages_a_user_without_rights_and_copies_only_what_the_context_holds() -> None:
    lines = list(instructions())
    words = [word for word, _ in lines]
    known = {"ARG", "FROM", "WORKDIR", "RUN", "COPY", "LABEL", "ENV", "USER", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT",
             "CMD"}  # fmt: skip
    assert set(words) == known and words.count("FROM") == 2
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in ("RUN", "COPY"))
    user = next(rest for word, rest in lines if word == "USER")
    assert int(user.split(":")[0]) > 1000
    base = next(rest for word, rest in lines if word == "ARG" and rest.startswith("PYTHON="))
    assert re.fullmatch(r"PYTHON=3\.(11|12|13)\.\d+-slim-\w+", base)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in lines:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert source in allowed and (ROOT / source).exists(), source
        if word in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list), "the exec form, so that SIGTERM reaches the process"
        assert "index-url" not in rest and "https://" not in rest.replace("https://github.com", "")
    pip = next(rest for word, rest in lines if word == "RUN" and "pip install" in rest)
    assert "-c requirements.lock" in pip and ".[${EXTRAS}]" in pip


def test_the_health_check_sees_a_connection_to_a_broker_and_nothing_else(tmp_path: Path) -> None:
    check = next(rest for word, rest in instructions() if word == "HEALTHCHECK").split("CMD ", 1)[1]
    table = tmp_path / "tcp"
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    for row, healthy in (
        ("   0: 050012AC:9C40 020012AC:075B 01 00000000:00000000", True),
        ("   0: 050012AC:9C40 020012AC:22B3 01 00000000:00000000", True),
        ("   0: 050012AC:9C40 020012AC:075B 06 00000000:00000000", False),  # closing
        ("   0: 00000000:075B 00000000:0000 0A 00000000:00000000", False),  # we are the broker
        ("", False),
    ):
        table.write_text(head + row + "\n")
        command = check.replace("/proc/net/tcp6", "").replace("/proc/net/tcp", str(table))
        assert (subprocess.run(["sh", "-c", command]).returncode == 0) is healthy, row


def test_shell_scripts_parse() -> None:
    for script, shell in (("secrets.sh", "sh"), ("influxdb/init.sh", "bash")):
        path = DEPLOY / script
        subprocess.run([shell, "-n", str(path)], check=True)
        assert os.access(path, os.X_OK), f"{script} is not executable, and its caller runs only what is"

"""Nothing holds releases up in silence: a canary that is gone, one that is misspelt, a model of another interface."""

from __future__ import annotations

from pathlib import Path

from test_models_cli import Done, onnx_file, shoal
from test_releases import DAY, NODES, Plant, tried

from cloud.canary import CanaryTest
from cloud.trials import ReleaseSettings


def test_a_trial_whose_canary_is_gone_ends_when_it_was_silent_for_long_enough(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "models.db", ReleaseSettings(test=CanaryTest(margin=0.1), inconclusive="promote"))
    gone, *others = tried(plant)
    for _ in range(9):
        plant.now += DAY // 8 - 70 * 10**6
        for node in others:
            plant.blocks(node, 0.5)
        plant.hear(plant.releases.on_time(plant.now))
        if not plant.canaries():
            break
    what, _, why = plant.last(2)
    assert plant.now < 2 * DAY and what == "inconclusive" and f"{gone} said nothing for 86400 s" in why
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet")), "silence lets nothing through, whatever the policy"
    plant.registry.close()


def test_canaries_that_there_are_not_are_said_once_in_history(tmp_path: Path) -> None:
    settings = ReleaseSettings(test=CanaryTest(margin=0.1), named=("s1/typo",))
    plant = Plant(tmp_path / "models.db", settings)
    assert tried(plant) == []
    for _ in range(3):
        plant.tick()
    events = [(event.what, event.why) for event in plant.registry.history("cell", 2)]
    assert [what for what, _ in events] == ["candidate", "validated", "waits"]
    assert "for s1/typo to run version 1" in events[-1][1] and "correct releases.named" in events[-1][1]
    plant.registry.close()


def test_a_file_of_another_interface_is_no_version_of_a_model_unless_it_is_said(tmp_path: Path) -> None:
    def bring(low: int, *more: str) -> Done:
        face = tmp_path / "face.toml"
        face.write_text(f'actions = ["pass", "stop"]\n[[features]]\nmetric = "wear"\nlow = {low}\nhigh = 1\n')
        file = str(onnx_file(tmp_path / "d.onnx"))
        into = ("--data", str(tmp_path / "cloud"), "--by", "ada")
        return shoal("import", file, "--model", "detector", "--interface", str(face), *into, *more)

    assert bring(0).returncode == 0
    refused = bring(-1)
    assert refused.returncode == 2 and "--new-interface" in refused.stderr and "Traceback" not in refused.stderr
    assert bring(-1, "--new-interface").returncode == 0

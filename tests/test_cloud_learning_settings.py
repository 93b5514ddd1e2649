"""What a cloud that learns is told, whom it knows, and what it leaves on the broker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from learning_rig import FACE, NET, key_of
from typer.testing import CliRunner

from cloud.ingest import Ingest
from cloud.learning_settings import LearningSettings, RoundSettings, read_interface
from cloud.ledger import Ledger
from cloud.observer import Observer
from cloud.retained_artefacts import KEPT, RetainedArtefacts
from cloud.roster import Roster
from cloud.service import also
from cloud.settings import CloudSettings
from cloud.stores import SqliteStore
from messages.cells import INTERFACE, NETWORK
from messages.errors import ConfigError, UsageError
from messages.learning import Artefact
from messages.settings import load
from messages.signing import SigningKey
from shoal.__main__ import app

ROOT = Path(__file__).resolve().parent.parent
A, B = key_of("a").public, key_of("b").public


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text(f'sites = ["s1"]\ndata = "{tmp_path / "data"}"\n{text}')
    return path


def test_a_cloud_that_learns_nothing_loads_nothing_of_it() -> None:
    look = (
        "import cloud.service, sys\n"
        "mine = {'cloud.learning', 'cloud.site_learning', 'cloud.rounds', 'cloud.gate', 'cloud.registry',\n"
        "        'cloud.roster', 'cryptography', 'safetensors', 'onnx'}\n"
        "print(sorted(mine & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "[]", said.stderr


def test_check_says_what_learns_and_the_key_that_nodes_must_know(tmp_path: Path) -> None:
    path = config(tmp_path, '[learning]\nenrol = "first"\n')
    said = CliRunner().invoke(app, ["cloud", "--config", str(path), "--check"])
    public = SigningKey.at(tmp_path / "data" / "cloud.key").public
    assert said.exit_code == 0
    assert (
        f'# public key of this cloud: {public}; every node is told it: [learning.keys] cloud = "{public}"'
        in said.output
    )
    assert "12 features, 5 actions, 18821 parameters, 18821 of them shared" in said.output
    again = tmp_path / "again.toml"
    again.write_text(said.output)
    assert load(CloudSettings, again) == load(CloudSettings, path), "what --check prints can be loaded"


@pytest.mark.parametrize(
    "text, cure",
    [
        ('[learning.keys]\npress = "abc"\n', "shoal edge --check"),
        ("[learning.rounds.training]\nstep = 5\n", "unknown key step; known: steps, mu"),
        ("[learning.rounds]\ndeadline = 5\n", "did you mean deadline_s?"),
        ('[learning.rounds.aggregate]\nkind = "mode"\n', "learning.rounds.aggregate"),
        ("[learning.rounds]\ndeadline_s = 1e12\n", "less than or equal to 31536000"),
        ("[learning]\npause_s = 1e300\n", "less than or equal to 31536000"),
        ("[learning.releases]\nlease_s = 1e300\n", "less than or equal to 31536000"),
        ('[learning.releases]\nnamed = ["press"]\n', "learning.releases.named"),
    ],
)
def test_settings_that_are_wrong_are_refused_with_the_cure(tmp_path: Path, text: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure.replace("?", r"\?").replace("[", r"\[")):
        load(CloudSettings, config(tmp_path, text))


def test_whose_nodes_learn_must_be_said_where_it_is_not_plain(tmp_path: Path) -> None:
    def site(sites: tuple[str, ...], **given: str) -> str:
        learning = LearningSettings.model_validate(given)
        return CloudSettings(sites=sites, data=tmp_path, learning=learning).learns_at(learning)

    assert site(("s1",)) == "s1" and site(("s1", "s2"), site="s2") == "s2"
    for sites, given in ((("s1", "s2"), {}), (("s1",), {"site": "s3"})):
        with pytest.raises(UsageError, match="name one of sites"):
            site(sites, **given)


def test_the_network_follows_from_what_is_read_and_decided(tmp_path: Path) -> None:
    assert LearningSettings().network(INTERFACE) == NETWORK and LearningSettings().read_interface() == INTERFACE
    face = tmp_path / "face.toml"
    face.write_text(FACE)
    wanted = LearningSettings(interface=face, hidden=(8,))
    assert wanted.network(wanted.read_interface()) == NET
    with pytest.raises(UsageError, match="take narrower layers"):
        LearningSettings(hidden=(4096, 4096)).network(INTERFACE)
    with pytest.raises(UsageError, match="hidden"):
        LearningSettings(hidden=(0,)).network(INTERFACE)


@pytest.mark.parametrize("text", ["", "actions = 3", "not TOML at all [", 'actions = ["wait"]\nfeatures = []'])
def test_an_interface_that_is_none_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    face = tmp_path / "face.toml"
    face.write_text(text)
    with pytest.raises(UsageError, match=r"face\.toml"):
        read_interface(face)
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        read_interface(tmp_path / "none.toml")


def test_training_in_settings_is_what_goes_out() -> None:
    assert RoundSettings.model_validate({"training": {"steps": 7}}).training.steps == 7


# --- the roster ---------------------------------------------------------------------------------


def roster(tmp_path: Path, **given: object) -> Roster:
    facts = {"told": {}, "enrol": "first", **given}
    return Roster(tmp_path / "nodes.db", **facts)  # type: ignore[arg-type]


def test_the_first_key_a_node_shows_is_its_key_also_after_a_restart(tmp_path: Path) -> None:
    first = roster(tmp_path)
    first.on_presence("press", online=True)
    assert not first.able
    assert first.on_capability("press", A, now=1) is None and first.able == {"press"}
    assert first.on_capability("press", A, now=2) is None
    first.close()
    again = roster(tmp_path)
    again.on_presence("press", online=True)
    assert again.able == {"press"}
    why = again.on_capability("press", B, now=3)
    assert why and f'[learning.keys] "press" = "{B}"' in why
    assert again.on_capability("press", B, now=3) is None, "said once"
    assert again.doubted == {"press"} == again.able, "anybody may have shown it: what it signs is judged"
    assert again.on_capability("press", A, now=4) is None and again.able == {"press"}
    again.close()
    told = roster(tmp_path, told={"press": B})
    told.on_presence("press", online=True)
    assert told.on_capability("press", B, now=5) is None and told.able == {"press"}, "the settings have the last word"
    told.close()


def test_a_stranger_is_not_enrolled_unless_the_settings_say_so(tmp_path: Path) -> None:
    strict = roster(tmp_path, told={"press": A}, enrol="settings")
    for node in ("press", "odd"):
        strict.on_presence(node, online=True)
    why = strict.on_capability("odd", B, now=1)
    assert why and 'enrol = "first"' in why and strict.able == {"press"}
    assert "none" in (strict.on_capability("worse", "abc", now=1) or "")
    strict.on_presence("press", online=False)
    assert not strict.able
    strict.close()


# --- what the broker may retain -----------------------------------------------------------------


def test_artefacts_nobody_needs_are_known_after_a_restart_and_a_bound_is_kept(tmp_path: Path) -> None:
    some = [Artefact.of(bytes([k])) for k in range(KEPT + 10)]
    shown = RetainedArtefacts(tmp_path / "models.db")
    for one in some:
        shown.show(one)
    shown.close()
    shown = RetainedArtefacts(tmp_path / "models.db")
    assert shown.old({some[0]}) == some[1:]
    for one in some[1:]:
        shown.gone(one)
    assert shown.old({some[0]}) == []
    assert len(shown.old({some[0]}, again=True)) == KEPT, "the last ones are taken back once more after a connect"
    assert shown.old(set()) == [some[0]]
    shown.show(some[5])
    assert some[5] in shown.old(set())
    shown.close()


def test_a_release_without_any_test_and_one_without_simulation_are_not_mixed_up(tmp_path: Path) -> None:
    why = ["--why", "x", "--data", str(tmp_path)]
    said = CliRunner().invoke(app, ["models", "release", "cell", "1", "--unvalidated", *why])
    assert isinstance(said.exception, UsageError) and "--try" in str(said.exception)


def test_the_key_is_made_once_and_is_what_nodes_are_told(tmp_path: Path) -> None:
    first, again = (CliRunner().invoke(app, ["models", "key", "--data", str(tmp_path)]).output for _ in range(2))
    public = SigningKey.at(tmp_path / "cloud.key").public
    assert first == again == f'[learning.keys]\ncloud = "{public}"\n'


def test_the_observer_hands_over_the_counters_of_everybody_in_the_process(tmp_path: Path) -> None:
    with SqliteStore(path=tmp_path / "store.db").open() as store:
        ledger = Ledger(store.connection, wall_us=1, path=tmp_path / "store.db")  # type: ignore[arg-type]
        observer = Observer(store, Ingest(store, ledger, now=lambda: 1), now=lambda: 1)
        also(observer, lambda: {"judge_terms": 1.0})
        also(observer, lambda: {"learning_round": 7.0})
        assert observer.also() == {"judge_terms": 1.0, "learning_round": 7.0}

"""Who may learn: a place is free when a node retires, strangers come slowly, and what anybody shows is no fact."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from learning_rig import CLOUD, key_of, settings

from cloud.roster import PER_MINUTE, Roster
from cloud.site_learning import SiteLearning

SECOND = 10**6


def test_who_retires_is_forgotten_also_after_a_restart_and_may_come_back_with_another_key(tmp_path: Path) -> None:
    told = {"press": key_of("press").public}
    with closing(Roster(tmp_path / "nodes.db", told=told, enrol="first")) as roster:
        for node in ("press", "lathe"):
            roster.on_capability(node, key_of(node).public, SECOND)
            roster.forget(node)
        assert roster.keys.keys() == {"press"}, "a key of the settings stays"
    with closing(Roster(tmp_path / "nodes.db", told=told, enrol="first")) as roster:
        assert roster.keys.keys() == {"press"}
        assert roster.on_capability("lathe", key_of("other").public, SECOND) is None
        assert roster.texts["lathe"] == key_of("other").public


def test_strangers_are_enrolled_so_many_a_minute_and_the_others_wait_their_turn(tmp_path: Path) -> None:
    key = key_of("anybody").public
    with closing(Roster(tmp_path / "nodes.db", told={}, enrol="first")) as roster:
        names = [f"n{k}" for k in range(2 * PER_MINUTE + 5)]
        for name in names:
            assert roster.on_capability(name, key, 100 * SECOND) is None
        assert len(roster.keys) == PER_MINUTE and roster.on_time(159 * SECOND) == []
        assert roster.on_time(160 * SECOND) == names[PER_MINUTE : 2 * PER_MINUTE]
        roster.forget(names[-1])
        assert roster.on_time(50 * SECOND) == names[2 * PER_MINUTE : -1], "also by a clock that was set back"


def test_a_key_that_anybody_shows_takes_no_node_out_of_rounds(tmp_path: Path) -> None:
    site = SiteLearning(settings(tmp_path), site="s1", data=tmp_path / "data", key=CLOUD)
    now = SECOND
    for name in ("press", "lathe"):
        site.on_presence(name, online=True)
        site.on_capability(name, key_of(name).public, now)
    for name in ("press", "lathe"):
        site.on_capability(name, key_of("somebody else").public, now)
    for _ in range(20):
        now += SECOND
        site.on_time(now)
    assert site.schedule.rounds.is_open, "they are known and there; what they sign is judged"
    assert site.roster.texts["press"] == key_of("press").public, "and what was shown is not believed"
    site.close()


def test_ever_other_keys_shown_in_the_name_of_a_node_fill_no_log(tmp_path: Path) -> None:
    right = key_of("press").public
    with closing(Roster(tmp_path / "nodes.db", told={"press": right}, enrol="settings")) as roster:
        said = []
        for number in range(40):
            said.append(roster.on_capability("press", key_of(f"other {number}").public, SECOND))
            assert roster.doubted == {"press"}
            if number % 3 == 0:
                roster.on_capability("press", right, SECOND)
                assert roster.doubted == set()
        assert [number for number, why in enumerate(said, 1) if why is not None] == [1, 2, 4, 8, 16, 32]

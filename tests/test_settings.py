"""Settings: a misspelt key never passes, and every refusal names file, key and cure."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, ValidationError

from cloud.settings import SwarmWeights
from messages.errors import ConfigError
from messages.settings import MAX_BYTES, Section, Settings, describe, load, variables


class Wide(Section):
    kind: Literal["wide"] = Field("wide", description="this store")
    width_mm: float = Field(3.0, gt=0, description="of the belt")


class Deep(Section):
    kind: Literal["deep"] = Field("deep", description="that store")
    depth: int = Field(3, ge=0, description="of the pit")


class Place(Section):
    host: str = Field("localhost", description="name or address")
    port: int = Field(1883, gt=0, le=65535, description="TCP port")
    password: SecretStr | None = Field(None, description="never shown")


class PressSettings(Settings):
    env_prefix: ClassVar[str] = "SHOAL_PRESS_"
    site: str = Field(description="site of this press")
    broker: Place = Field(Place(), description="where the bus is")
    store: Annotated[Wide | Deep, Field(discriminator="kind")] = Field(Deep(), description="where things go")
    spare: tuple[Place, ...] = Field((), description="other brokers")
    names: list[str] = Field([], description="of the operators")
    limits: dict[str, float] = Field({}, description="by metric")
    window_s: float = Field(1.5, ge=0, description="length of a window")


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "press.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(PressSettings, file(tmp_path, text), environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('sites = "a"', ["press.toml: site: required", "site of this press", "SHOAL_PRESS_SITE"]),
        ('site = "a"\nwindows_s = 2', ["windows_s: unknown key; did you mean window_s?"]),
        ('site = "a"\n[broker]\nprot = 1', ["broker.prot: unknown key; did you mean port?"]),
        ('site = "a"\n[broker]\nport = 70000', ["broker.port", "65535", "got 70000", "TCP port"]),
        ('site = "a"\n[store]\nkind = "wide"\nwidth = 1', ["width: unknown key; did you mean width_mm?"]),
        ('site = "a"\n[store]\nkind = "flat"', ["store", "'flat'", "'wide', 'deep'"]),
        ('site = "a"\n[[spare]]\nhots = "x"', ["spare.0.hots: unknown key; did you mean host?"]),
        ('site = "a"\nwindow_s = nan', ["window_s", "finite"]),
        ("site = ", ["press.toml: not TOML"]),
        ('site = "a"\nsite = "b"', ["not TOML", "overwrite"]),
        ('site = "a"\nnames = ' + "[" * 5000, ["not TOML"]),
    ],
)
def test_a_wrong_file_is_refused_with_its_cure(tmp_path: Path, text: str, says: list[str]) -> None:
    told = refusal(tmp_path, text)
    assert all(part in told for part in says), told


def test_every_problem_is_named_in_its_own_line_up_to_a_bound(tmp_path: Path) -> None:
    told = refusal(tmp_path, "\n".join(f"x{number} = 1" for number in range(30)))
    assert len(told.splitlines()) == 9
    assert "and 23 more" in told  # 30 strangers and one missing key


def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give the settings file with --config"):
        load(PressSettings, tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(PressSettings, tmp_path, {})
    path = file(tmp_path, "")
    path.write_bytes(b"site = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 8"):
        load(PressSettings, path, {})
    path.write_bytes(b'data = "a\\u0000b"')
    with pytest.raises(ConfigError, match="NUL"):
        load(PressSettings, path, {})
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(PressSettings, path, {})


def test_the_environment_overrides_the_file_key_by_key(tmp_path: Path) -> None:
    path = file(tmp_path, 'site = "a"\n[broker]\nhost = "plant"\nport = 1')
    settings = load(
        PressSettings,
        path,
        {
            "SHOAL_PRESS_BROKER__PORT": "1884",
            "SHOAL_PRESS_SITE": "7",
            "SHOAL_PRESS_NAMES": '["ada", "bo"]',
            "SHOAL_PRESS_STORE": '{"kind": "wide"}',
            "SHOAL_PRESS_STORE__WIDTH_MM": "9",
            "SHOAL_OTHER": "x",
            "PATH": "/bin",
        },
    )
    assert (settings.site, settings.broker.host, settings.broker.port) == ("7", "plant", 1884)
    assert settings.names == ["ada", "bo"]
    assert settings.store == Wide(width_mm=9)


def test_a_misspelt_variable_is_refused_like_a_misspelt_key(tmp_path: Path) -> None:
    told = refusal(tmp_path, 'site = "a"', SHOAL_PRESS_WINDOWS_S="2")
    assert "SHOAL_PRESS_WINDOWS_S: no such setting; did you mean SHOAL_PRESS_WINDOW_S?" in told


def test_a_bad_value_names_the_variable_it_came_from_and_never_a_secret(tmp_path: Path) -> None:
    assert "from SHOAL_PRESS_BROKER__PORT" in refusal(tmp_path, 'site = "a"', SHOAL_PRESS_BROKER__PORT="x")
    assert "hunter2" not in refusal(tmp_path, 'site = "a"\n[broker]\npassword = ["hunter2"]')
    assert "is 'x' in the file, not a table" in refusal(tmp_path, 'broker = "x"', SHOAL_PRESS_BROKER__PORT="1")


def test_settings_built_directly_look_at_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_PRESS_WINDOW_S", "99")
    assert PressSettings(site="a").window_s == 1.5


def test_a_setting_without_a_description_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="describe speed"):

        class Silent(Section):
            speed: int = 3


def test_variables_name_every_key_once() -> None:
    names = variables(PressSettings)
    assert names["SHOAL_PRESS_BROKER__PORT"] == ("broker", "port")
    assert "SHOAL_PRESS_STORE__DEPTH" in names
    assert not any("SPARE__" in name for name in names)  # a list has no single port


def test_the_effective_settings_show_descriptions_and_mask_secrets() -> None:
    text = describe(PressSettings(site="a", broker=Place(password=SecretStr("hunter2"))))
    assert "# length of a window\nwindow_s = 1.5" in text
    assert "hunter2" not in text
    assert tomllib.loads(text)["broker"]["password"] == "**********"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@hypothesis.settings(deadline=None)
@given(
    site=TEXT,
    names=st.lists(TEXT, max_size=3),
    limits=st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    window_s=st.floats(min_value=0, allow_infinity=False),
    spare=st.lists(st.builds(Place, host=TEXT, port=st.integers(1, 65535)), max_size=2),
    store=st.one_of(st.builds(Wide, width_mm=st.floats(0.1, 1e300)), st.builds(Deep, depth=st.integers(0, 2**60))),
)
def test_what_check_prints_can_be_loaded_again(
    site: str, names: list[str], limits: dict[str, float], window_s: float, spare: list[Place], store: Wide | Deep
) -> None:
    settings = PressSettings(site=site, names=names, limits=limits, window_s=window_s, spare=tuple(spare), store=store)
    assert PressSettings.model_validate(tomllib.loads(describe(settings))) == settings


def test_a_judge_for_whom_nothing_counts_is_refused() -> None:
    with pytest.raises(ValidationError, match="more than 0"):
        SwarmWeights(makespan=0)
    assert SwarmWeights(makespan=0, waiting=1).waiting == 1

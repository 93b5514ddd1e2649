"""Settings of one process: a TOML file, the environment over it, every key described, strangers refused.

    class EdgeSettings(Settings):
        env_prefix: ClassVar[str] = "SHOAL_EDGE_"
        site: str = Field(description="site this node belongs to")
        broker: Broker = Field(Broker(), description="where the bus is")     # Broker is a Section

    settings = load(EdgeSettings, Path("node.toml"))    # SHOAL_EDGE_BROKER__PORT=1884 overrides [broker] port
    print(describe(settings))                           # the effective settings, again as TOML, secrets masked

A misspelt key or variable is an error, never ignored. Every refusal is a ConfigError of one line per
problem that names the file (or the variable), the key and the cure. Models are plain frozen pydantic
models: built directly, as tests do, they look at neither files nor environment.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from messages.errors import ConfigError, UsageError

MAX_BYTES = 1024 * 1024
"""Largest settings file read."""

PROCESSES = ("EDGE", "CLOUD", "SIM")
"""Processes whose environment variables begin `SHOAL_<process>_`."""

_SHOWN = 8
"""Problems named in one error; the rest are counted."""


class Section(BaseModel):
    """A table of settings: frozen, unknown keys refused, every field described."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        silent = [name for name, field in cls.model_fields.items() if not field.description]
        if silent:
            raise TypeError(f"{cls.__name__}: describe {', '.join(silent)} with Field(description=…)")


class Settings(Section):
    """The settings of one process. `env_prefix` starts the names of its environment variables."""

    env_prefix: ClassVar[str] = ""

    def facts(self) -> list[str]:
        """What `--check` says beside the settings, a line each."""
        return []


S = TypeVar("S", bound=BaseModel)


def load(cls: type[S], path: Path | None, environ: Mapping[str, str] | None = None) -> S:
    """The settings in the file `path` (None: no file), overridden by `environ` (default: the process's)."""
    environ = os.environ if environ is None else environ
    given = _read(path) if path else {}
    where = str(path) if path else "settings"
    from_env = _override(cls, given, environ)
    try:
        return cls.model_validate(given)
    except UsageError as error:  # a validator that knows the cure itself
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError as error:
        problems = [_problem(cls, detail, from_env) for detail in error.errors(include_url=False)]
        more = [f"… and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ConfigError("\n".join(f"{where}: {text}" for text in problems[:_SHOWN] + more)) from None


def variables(cls: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """Every environment variable of these settings and the key it overrides."""
    prefix = _prefix(cls)
    if not prefix:
        return {}
    return {prefix + "__".join(path).upper(): path for path, _ in _fields(cls)}


def describe(settings: BaseModel) -> str:
    """The effective settings as TOML that `load` reads again; descriptions as comments, secrets masked."""
    return "\n".join(_table(settings, ())).strip() + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; is this a settings file?")
        text = path.read_text(encoding="utf-8")
        if "\\u0000" in text or "\\U00000000" in text:  # no name of a file or topic may have one
            raise ConfigError(f"{path}: a string with the character NUL (\\u0000); take it out")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the settings file with --config FILE") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error or 'nested too deep'}") from None


def _override(cls: type[BaseModel], given: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Write the variables of `environ` into `given`; returns which key came from which variable."""
    prefix = _prefix(cls)
    if not prefix:
        return {}
    _refuse_misspelt_process(environ)
    known = variables(cls)
    fields = dict(_fields(cls))
    from_env: dict[tuple[str, ...], str] = {}
    # Shortest path first, so that a variable for one key of a table wins over a variable for the table.
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if not name.startswith(prefix):
            continue
        if name not in known:
            raise ConfigError(f"environment variable {name}: no such setting{_guess(name, known)}")
        *tables, key = path = known[name]
        place = given
        for table in tables:
            inner = place.setdefault(table, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"environment variable {name}: `{table}` is {inner!r} in the file, not a table")
            place = inner
        place[key] = _value(fields[tuple(path)], environ[name])
        from_env[tuple(path)] = name
    return from_env


def _refuse_misspelt_process(environ: Mapping[str, str]) -> None:
    """`SHOAL_EDEG_LOCAL__PORT` is nobody's variable: whoever set it meant something else."""
    for name in environ:
        root, _, rest = name.partition("_")
        process = rest.partition("_")[0]
        if root != "SHOAL" or process in PROCESSES or "_" not in rest:
            continue
        close = difflib.get_close_matches(process, PROCESSES, n=1, cutoff=0.6)
        if close:
            raise ConfigError(
                f"environment variable {name}: no such process {process}; did you mean SHOAL_{close[0]}_?"
            )


def _value(field: FieldInfo, text: str) -> Any:
    """`text` itself where the field can read it, else the JSON in it (lists and tables)."""
    try:
        reader: TypeAdapter[Any] = TypeAdapter(cast(Any, Annotated[field.annotation, field]))
        reader.validate_python(text)
    except ValidationError:
        if text.lstrip()[:1] in ("[", "{"):
            try:
                return json.loads(text)
            except ValueError:
                return text
    return text


def _prefix(cls: type[BaseModel]) -> str:
    """Empty for a model that takes no variables."""
    return cls.env_prefix if issubclass(cls, Settings) else ""


def _fields(cls: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in cls.model_fields.items():
        yield (*above, name), field
        if not _is_collection(field.annotation):
            for model in _models(field.annotation):
                yield from _fields(model, (*above, name))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation may hold: itself, or inside a union, list or dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _is_collection(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    if isinstance(origin, type) and issubclass(origin, list | tuple | set | frozenset | dict):
        return True
    return any(_is_collection(inner) for inner in get_args(annotation))


def _problem(cls: type[BaseModel], detail: Any, from_env: Mapping[tuple[str, ...], str]) -> str:
    """One line for one pydantic error: key, what is wrong, cure."""
    loc: tuple[int | str, ...] = detail["loc"]
    key = ".".join(str(part) for part in loc) or "the file"
    field, siblings = _locate(cls, loc)
    about = f" ({field.description})" if field is not None and field.description else ""
    source = from_env.get(tuple(str(part) for part in loc))
    origin = f" [from {source}]" if source else ""
    match detail["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key{_guess(str(loc[-1]), siblings)}"
        case "missing":
            hint = _prefix(cls) + "__".join(str(part) for part in loc).upper()
            also = f" or set {hint}" if hint in variables(cls) else ""
            return f"{key}: required{about}; add `{loc[-1]} = …`{also}"
        case _:
            secret = field is not None and "Secret" in str(field.annotation)
            got = detail["input"]
            shown = "" if secret or isinstance(got, dict | list) else f", got {_short(got)}"
            return f"{key}: {_lower(detail['msg'])}{shown}{origin}{about}"


def _locate(cls: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[FieldInfo | None, list[str]]:
    """The field at `loc` (None: there is none) and the names that could stand in its place."""
    models: list[type[BaseModel]] = [cls]
    field: FieldInfo | None = None
    siblings: list[str] = sorted(cls.model_fields)
    for depth, part in enumerate(loc, 1):
        found = next((model.model_fields[part] for model in models if part in model.model_fields), None)
        if found is None:  # a list index, a dict key or the tag of a union, or nothing we know
            tagged = [model for model in models if _tag(model) == part]
            models = tagged or models
            field = field if isinstance(part, int) or tagged else None
        else:
            field, models = found, _models(found.annotation)
            if depth == len(loc):
                break
        siblings = sorted({name for model in models for name in model.model_fields}) or siblings
    return field, siblings


def _tag(model: type[BaseModel]) -> object:
    return next((f.default for name, f in model.model_fields.items() if name in ("kind", "type")), None)


def _guess(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _table(model: BaseModel, above: tuple[str, ...]) -> Iterator[str]:
    tables: list[tuple[str, FieldInfo, Any]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel) or (_is_table_list(value)):
            tables.append((name, field, value))
            continue
        yield from (f"# {line}" for line in (field.description or "").splitlines())
        yield f"# {name} = (unset)" if value is None else f"{_key(name)} = {_toml(value)}"
    for name, field, value in tables:
        path = (*above, name)
        head = ".".join(_key(part) for part in path)
        for entry in value if isinstance(value, list | tuple) else [value]:
            yield ""
            yield from (f"# {line}" for line in (field.description or "").splitlines())
            yield f"[[{head}]]" if isinstance(value, list | tuple) else f"[{head}]"
            yield from _table(entry, path)


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, BaseModel) for item in value)


def _toml(value: Any) -> str:
    match value:
        case SecretStr():
            return '"**********"'
        case bool():
            return "true" if value else "false"
        case Enum():
            return _toml(value.value)
        case int():
            return str(value)
        case float():
            return repr(value)
        case datetime() | date() | time():
            return value.isoformat()
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case set() | frozenset():
            return "[" + ", ".join(sorted(_toml(item) for item in value)) + "]"
        case Mapping():
            # TOML has no null: a key without a value is left out.
            pairs = (f"{_key(str(key))} = {_toml(item)}" for key, item in value.items() if item is not None)
            return "{" + ", ".join(pairs) + "}"
        case BaseModel():
            return _toml({name: getattr(value, name) for name in type(value).model_fields})
        case _:
            return _string(str(value))


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else _string(name)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

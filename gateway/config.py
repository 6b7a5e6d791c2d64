"""tandem.toml -> frozen models; whatever cannot be meant refuses to start and names its line and cure.

`load` is for the gateway, `examine` for `tandem check-config`, which shows every mistake at once.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config_checks import Problem, closest, contradictions
from gateway.config_files import file_problems, file_warnings
from gateway.config_lines import KeyLines, KeyPath
from gateway.config_models import (
    Agent,
    AgentRules,
    Cdr,
    Config,
    Gateway,
    Graph,
    Http,
    Journal,
    Limits,
    Log,
    Media,
    Resolver,
    Route,
    SignIn,
    Sip,
    Token,
    Webhook,
)
from gateway.config_trunk import TEAMS_PEERS, TEAMS_RANGES, Trunk
from gateway.errors import ConfigError

__all__ = [
    "TEAMS_PEERS",
    "TEAMS_RANGES",
    "Agent",
    "AgentRules",
    "Cdr",
    "Config",
    "Examination",
    "Gateway",
    "Graph",
    "Http",
    "Journal",
    "Limits",
    "Log",
    "Media",
    "Resolver",
    "Route",
    "SignIn",
    "Sip",
    "Token",
    "Trunk",
    "Webhook",
    "examine",
    "load",
]

MAX_FILE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Examination:
    """What came of reading a file: a configuration when there is no error; both lists in line order."""

    config: Config | None
    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigError] = field(default_factory=list)


def load(path: Path | str) -> Config:
    """The configuration in `path`; ConfigError (the first in the file) when it cannot be used."""
    found = examine(path)
    if found.config is None:
        raise found.errors[0]
    return found.config


def examine(path: Path | str) -> Examination:
    """Read, check and explain a configuration file; never raises for what is in it."""
    path = Path(path)
    name = str(path)
    try:
        text = _read(path)
        data = tomllib.loads(text)
    except ConfigError as error:
        return Examination(None, [error])
    except tomllib.TOMLDecodeError as error:
        return Examination(None, [_syntax(name, str(error), text)])
    lines = KeyLines(text)

    def place(problems: Iterator[Problem]) -> list[ConfigError]:
        found = [ConfigError(name, lines.line(p.path), p.text, p.cure) for p in problems]
        return sorted(found, key=lambda error: error.line)

    try:
        config = Config.model_validate(
            _default_tenants(data), context={"base": path.absolute().parent}, by_name=False, by_alias=True
        )
    except ValidationError as error:
        return Examination(None, place(_explain(e, data) for e in error.errors(include_url=False)))
    errors = place(contradictions(config)) + place(file_problems(config))
    if errors:
        return Examination(None, sorted(errors, key=lambda error: error.line))
    return Examination(config, [], place(file_warnings(config)))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(
            str(path), 0, f"cannot read it: {error.strerror}", "name one with --config"
        ) from None
    if len(data) > MAX_FILE:
        raise ConfigError(str(path), 0, f"larger than {MAX_FILE // 1024} KiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), line, "not UTF-8 text", "save it as UTF-8") from None
    return text.replace("\r\n", "\n")


def _syntax(name: str, message: str, text: str) -> ConfigError:
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if match is None:
        return ConfigError(name, 0, f"not TOML: {message}")
    line = int(match[2]) if match[2] else text.rstrip().count("\n") + 1
    where = f" at column {match[3]}" if match[3] else ""
    return ConfigError(name, line, f"not TOML: {match[1]}{where}", 'texts stand in quotes: key = "value"')


def _default_tenants(data: dict[str, Any]) -> dict[str, Any]:
    """A direct-routing trunk without tenants has one: the gateway's own FQDN, if that is a public name."""
    section, trunks = data.get("gateway"), data.get("trunk")
    fqdn = section.get("fqdn") if isinstance(section, dict) else None
    if not isinstance(fqdn, str) or "." not in fqdn or not isinstance(trunks, list):
        return data

    def filled(trunk: Any) -> Any:
        if isinstance(trunk, dict) and trunk.get("kind") == "direct-routing":
            return {"tenants": [fqdn]} | trunk
        return trunk

    return data | {"trunk": [filled(trunk) for trunk in trunks]}


def _explain(error: ErrorDetails, data: dict[str, Any]) -> Problem:
    """A pydantic error in the operator's words; values are repeated only where no secret can be."""
    path: KeyPath = tuple(error["loc"])
    where = _title(path)
    context: dict[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "tandem":
            return Problem(path, f"{where}: {context['problem']}", str(context["cure"]))
        case "extra_forbidden":
            known = _keys(_model_at(path[:-1]))
            return Problem(
                path, f"unknown key {path[-1]!r} in {_title(path[:-1])}", closest(str(path[-1]), known)
            )
        case "missing":
            return Problem(path, f"{_title(path[:-1])} needs the key {path[-1]!r}", "add it")
        case "enum" | "literal_error":
            return Problem(
                path, f"{where}: not one of the values it can have", f"one of {context['expected']}"
            )
        case "model_type" | "model_attributes_type" | "dict_type":
            written = f"[{path[0]}]" if len(path) == 1 else "{ key = value }"
            return Problem(path, f"{where}: this is a table", f"write {written}")
        case "tuple_type" if path in (("trunk",), ("route",), ("agent",)):
            return Problem(path, f"{path[0]} is a list of tables", f"write [[{path[0]}]]")
        case "tuple_type":
            return Problem(path, f"{where}: this is a list", 'write ["...", "..."]')
        case _:
            return Problem(path, f"{where}: {error['msg']}")


def _title(path: KeyPath) -> str:
    """`[sip] listen`, `[[trunk]] 2 peers`: as the operator sees it, counted from 1."""
    if not path:
        return "the file"
    array = len(path) > 1 and isinstance(path[1], int)
    words = [f"[[{path[0]}]]" if array else f"[{path[0]}]"]
    words += [str(part + 1) if isinstance(part, int) else part for part in path[1:]]
    return " ".join(words)


def _model_at(path: KeyPath) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Config
    for part in path:
        if isinstance(part, int) or model is None:
            continue
        model = next(
            (
                _model_of(info.annotation)
                for name, info in model.model_fields.items()
                if (info.alias or name) == part
            ),
            None,
        )
    return model


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()] if model else []

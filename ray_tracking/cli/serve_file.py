"""
A Serve YAML, read more strictly than Ray reads it.

Ray ignores keys that it does not know, so a typing error means the default without
a word. Here an unknown key, a key given twice, or a deployment that we do not have
is an error that names it. What Serve allows is asked of the installed Ray.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ray_tracking.errors import SettingsError
from ray_tracking.settings import Settings
from ray_tracking.settings.changes import changed
from ray_tracking.settings.environment import did_you_mean

IMPORT_PATH = "ray_tracking.app:build"
DEPLOYMENTS = ("Ingress", "Supervisor")

#: Both of these make a file one for ``ray up``.
_LAUNCHER_KEYS = {"cluster_name", "provider"}
#: Any of these makes a file a Serve YAML; otherwise it is a mapping of settings.
_SERVE_KEYS = {"applications", "proxy_location", "http_options", "grpc_options", "logging_config"}


class ConfigFile(NamedTuple):
    """What a file says: our settings, and Serve's keys where it is a Serve YAML."""

    args: Mapping[str, Any]
    serve: Mapping[str, Any] | None


def read_config(path: Path) -> ConfigFile:
    """
    Read a Serve YAML with our application, or a bare mapping of settings.

    Raises:
        SettingsError: It cannot be read, or holds what Serve would not understand.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"{path}: cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        # Only what and where: the text around it may hold a password.
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise SettingsError(f"{path}: is not YAML: {line}{problem}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{path}: must be a mapping of names to values")
    if content.keys() >= _LAUNCHER_KEYS:
        raise SettingsError(
            f"{path}: this is a file for Ray's cluster launcher, not a Serve config"
        )
    if not _SERVE_KEYS & content.keys():
        return ConfigFile(content, None)
    _check_serve(path, content)
    ours = [app for app in content["applications"] if app["import_path"] == IMPORT_PATH]
    if len(ours) != 1:
        raise SettingsError(
            f"{path}: applications: must hold one with import_path {IMPORT_PATH}, not {len(ours)}"
        )
    for deployment in ours[0].get("deployments", ()):
        name = deployment["name"]
        if name not in DEPLOYMENTS:
            raise SettingsError(
                f"{path}: deployments: no deployment is called {name!r}"
                f"{did_you_mean(name, DEPLOYMENTS)}"
            )
    return ConfigFile(ours[0].get("args") or {}, content)


def check_listener(serve: Mapping[str, Any], settings: Settings) -> None:
    """
    Check that somebody listens on the port, and nobody else does.

    Raises:
        SettingsError: Serve's proxy and the setting ``listener`` contradict each other.
    """
    proxy = serve.get("proxy_location", "EveryNode") != "Disabled"
    options = serve.get("http_options") or {}
    address = (options.get("host", "127.0.0.1"), options.get("port", 8000))
    if settings.listener == "replica":
        if proxy and address[1] == settings.port:
            raise SettingsError(
                f"proxy_location: must be Disabled while listener is replica: "
                f"Serve's proxy would take port {settings.port}"
            )
    elif not proxy:
        raise SettingsError("proxy_location: Disabled is not possible while listener is serve")
    elif address != (settings.host, settings.port):
        raise SettingsError(
            f"http_options: {address[0]}:{address[1]} must be the same as host and port "
            f"({settings.host}:{settings.port}) while listener is serve"
        )


def check_changes(serve: Mapping[str, Any], settings: Settings) -> None:
    """
    Check what is to change of the settings as soon as the application runs.

    Raises:
        SettingsError: The supervisor would refuse it.
    """
    for application in serve["applications"]:
        if application["import_path"] != IMPORT_PATH:
            continue
        for deployment in application.get("deployments", ()):
            name, values = deployment["name"], deployment.get("user_config")
            if values is not None and name != "Supervisor":
                raise SettingsError(
                    f"deployments: user_config of {name}: belongs to Supervisor, which hands it on"
                )
            try:
                changed(settings, values)
            except SettingsError as error:
                raise SettingsError(f"user_config: {error}") from None


def _check_serve(path: Path, content: Mapping[str, Any]) -> None:
    # Only here: Ray takes a second to import.
    from ray.serve.schema import ServeDeploySchema

    unknown = "; ".join(_unknown_keys(ServeDeploySchema, content, ""))
    if unknown:
        raise SettingsError(f"{path}: {unknown}")
    try:
        ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in found["loc"])
        raise SettingsError(f"{path}: {where}: {found['msg']}") from None


def _unknown_keys(model: type[BaseModel], value: Any, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_keys(model, item, f"{where.removesuffix('.')}[{index}].")
        return
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"{where}{key}: unknown key{did_you_mean(str(key), model.model_fields)}"
            continue
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _unknown_keys(inner, item, f"{where}{key}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, be it alone, optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, list):
        for inner in get_args(annotation):
            model = _model_in(inner)
            if model is not None:
                return model
    return None


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} is given twice", node.value[index][0].start_mark
                )
        return super().construct_mapping(node, deep)

"""The user's own validation rules, found by their dotted paths."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from ray_tracking.errors import SettingsError
from ray_tracking.pipeline.validate import Rule


def load_rules(paths: Sequence[str]) -> list[Rule]:
    """
    Import rules such as ``mypkg.rules:no_internal_ips``.

    Raises:
        SettingsError: If one cannot be imported or is not callable.
    """
    rules: list[Rule] = []
    for path in paths:
        module, _, name = path.partition(":")
        try:
            rule = getattr(import_module(module), name)
        except Exception as error:  # it is somebody's code that runs here
            raise SettingsError(f"validation_rules: {path!r} cannot be imported: {error}") from None
        if not callable(rule):
            raise SettingsError(f"validation_rules: {path!r} is not a function")
        rules.append(rule)
    return rules

"""
What is wrong with the settings, in one line a person can act on.

Each part names the setting as the user wrote it, shows the value unless it is a
secret, and says what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from ray_tracking.settings.environment import did_you_mean

#: Never shown, in no message and no dump.
SECRETS = frozenset(
    {"database_url", "redis_url", "redis_password", "email_encryption_key", "api_keys"}
)

_ALLOWED = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be on or off",
    "bool_type": "must be on or off",
    "string_type": "must be a text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "value_error": "{error}",
}


def explain(error: ValidationError, names: Mapping[str, str], known: Iterable[str]) -> str:
    """
    Say what is wrong.

    Args:
        error: What pydantic found.
        names: How the user wrote a setting, where not by its own name.
        known: Names of all settings, for a suggestion.
    """
    known = list(known)
    return "; ".join(_part(item, names, known) for item in error.errors(include_url=False))


def _part(item: Any, names: Mapping[str, str], known: list[str]) -> str:
    loc = item["loc"]
    if not loc:
        return f"settings must be a mapping of names to values, not {item['input']!r}"
    field = str(loc[0])
    name = names.get(field, field) + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc[1:]
    )
    if item["type"] == "extra_forbidden":
        return f"{name}: unknown setting" + (did_you_mean(field, known) if len(loc) == 1 else "")
    template = _ALLOWED.get(item["type"])
    allowed = template.format(**item.get("ctx", {})) if template else item["msg"]
    if field in SECRETS or item["type"] == "missing":
        return f"{name}: {allowed}"
    return f"{name}: {_shown(item['input'])} is not possible: {allowed}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

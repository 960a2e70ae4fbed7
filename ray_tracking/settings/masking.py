"""Secrets as they may be shown: that there is one, and nothing of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from ray_tracking.settings.kinds import ApiKey

MASK = "***"


def masked(name: str, value: SecretStr | Sequence[ApiKey] | None) -> Any:
    """
    What may be shown of the secret setting ``name``.

    A URL keeps all but its password, an API key only its scopes.
    """
    if value is None:
        return None
    if not isinstance(value, SecretStr):
        return [f"{MASK}:{'+'.join(sorted(key.scopes))}" for key in value]
    return mask_url(value.get_secret_value()) if name.endswith("_url") else MASK


def mask_url(url: str) -> str:
    """
    The URL without its password, wherever it stands in it.

    Hides up to the last ``@``, or from a ``password=`` to the end: a password in
    which ``/`` or ``&`` was not escaped must not show through. At worst too much
    is hidden.
    """
    url = re.sub(r"(?s)(://[^:@/?#]*):.*@", rf"\1:{MASK}@", url)
    return re.sub(r"(?is)(\w*pass\w*)=.*", rf"\1={MASK}", url)

"""
What a user may set: one frozen tree, read once, checked before anything starts.

A value comes from the first of these that has it: the environment, the ``args``
of the Serve YAML, the preset, the default. :meth:`Settings.load` merges the four.
Ray Serve validates ``args`` alone before our builder runs, so the builder calls
:meth:`Settings.with_environment` on what it is given.

Whatever is unknown or impossible raises :class:`ray_tracking.errors.SettingsError`:
one line that names the setting as the user wrote it, and never shows a secret.

The table of settings is :mod:`ray_tracking.settings.model`; this package is the
only one in the project that reads the environment.
"""

from __future__ import annotations

from ray_tracking.settings.kinds import ApiKey, Scope, Thresholds
from ray_tracking.settings.model import Settings
from ray_tracking.settings.presets import PRESETS

__all__ = ["PRESETS", "ApiKey", "Scope", "Settings", "Thresholds"]

"""Takes every event of an email campaign, stores each exactly once, and shows it live."""

from __future__ import annotations

__version__ = "0.1.0"

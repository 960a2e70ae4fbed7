"""What settings name and a start reads: is it there, and what it has to be?"""

from __future__ import annotations

from ray_tracking.settings import Settings


def check_named(settings: Settings) -> None:
    """
    Import the validation rules and open the geo database, as the service will.

    Raises:
        SettingsError: A rule cannot be imported.
        StartError: The geo database cannot be read.
    """
    # Only here: a command that is asked for its help needs neither.
    from ray_tracking.sources.rules import load_rules
    from ray_tracking.stores.geo import GeoTable

    load_rules(settings.validation_rules)
    GeoTable(settings.geo_database).close()

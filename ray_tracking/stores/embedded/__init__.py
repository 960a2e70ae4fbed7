"""
Real Postgres and Valkey, started by the application itself when it is given no others.

    servers = await EmbeddedServers.start(data_dir, postgres=True, valkey=True)
    servers.urls.database_url, servers.urls.redis_url
    await servers.stop()

* The data outlives every crash: of a server, of the guard, of the application, of all at once.
* No process is left behind: see :mod:`ray_tracking.stores.embedded.guard`.
* Nothing listens on a network; two data directories do not meet.
* It runs as root and as an ordinary user: see :mod:`ray_tracking.stores.embedded.identity`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_tracking.stores.embedded.client import EmbeddedServers, ServerUrls

__all__ = ["EmbeddedServers", "ServerUrls"]


def __getattr__(name: str) -> object:
    # The guard is below this package, and has no use for what the client imports.
    if name in __all__:
        from ray_tracking.stores.embedded import client

        return getattr(client, name)
    raise AttributeError(name)

"""
Events of this node that wait on its own disk while the event log is out of reach.

    spool = await Spool.create(directory, max_bytes=1 << 30)
    offset = await spool.append(payload, events=3)        # returns after the fsync

    records = await spool.read(spool.cursor, max_bytes=1 << 20)
    await spool.advance(records[-1].end)                  # the log has them now

    for spool_id in await orphans(directory):
        if (left := await Spool.adopt(directory, spool_id)) is not None: ...

The files, for nobody's eyes but ours::

    <directory>/<spool id>/lock                        flocked as long as its process lives
    <directory>/<spool id>/<offset, 20 digits>.seg     frames, from that offset on
    <directory>/<spool id>/cursor                      everything before it is in the log
    <directory>/corrupt/<spool id>-<offset>.bin        bytes that were no records any more

A spool has one writer, the process that made it. When that has died, another process of
the node adopts the spool: to drain it, never to append, so that an offset is given once
whatever the crash has left.
"""

from __future__ import annotations

from ray_tracking.stores.spool.directory import orphans
from ray_tracking.stores.spool.frames import MAX_PAYLOAD_BYTES, Record
from ray_tracking.stores.spool.group_commit import SpoolFull
from ray_tracking.stores.spool.spool import Spool

__all__ = ["MAX_PAYLOAD_BYTES", "Record", "Spool", "SpoolFull", "orphans"]

#!/usr/bin/env python3
"""
Sends events, one a line of JSON on standard input, and keeps what cannot be sent now in a file.

    your-engine | python examples/fallback.py kept.ndjson
    python examples/fallback.py kept.ndjson < /dev/null     # only what is kept

A line is `{"event_type": …, "data": {…}}`. Each event gets an event_id before it is sent for the
first time, so that sending it again is safe: the service knows it by that for its idempotency
window. Only an event whose answer was lost, and that then lies in the file for longer than that
window, may be counted twice. None is lost: a line that is no event is set aside, in a file beside
(`kept.ndjson.unread`), and the next ones are read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray_tracking import TrackingClient, Unreachable

Event = dict[str, Any]

BATCH = 500


class Kept:
    """Events in a file, the oldest first, which are on disk when a call returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        *lines, cut_off = path.read_text().split("\n") if path.exists() else [""]
        self.events: list[Event] = [json.loads(line) for line in lines]
        if cut_off:  # by a crash: it was not on disk, and whoever sent it knows
            self.replace(self.events)

    def add(self, event: Event) -> None:
        """Keep one more."""
        self.events.append(event)
        self._write(self._path, "a", [event])

    def replace(self, events: Sequence[Event]) -> None:
        """Keep these alone; whoever dies here has the file as it was, or as it is to be."""
        beside = self._path.with_suffix(".new")
        self._write(beside, "w", events)
        beside.rename(self._path)
        self.events = list(events)

    def set_aside(self, line: bytes) -> Path:
        """Keep a line that is no event, for somebody to look at; returns where."""
        beside = self._path.with_name(f"{self._path.name}.unread")
        with beside.open("ab") as file:
            file.write(line.rstrip(b"\n") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return beside

    def _write(self, path: Path, mode: str, events: Sequence[Event]) -> None:
        with path.open(mode) as file:
            file.writelines(json.dumps(event) + "\n" for event in events)
            file.flush()
            os.fsync(file.fileno())


def read(line: bytes) -> Event:
    """
    The event of a line, with an event_id.

    Raises:
        ValueError: It is none.
    """
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        raise ValueError("no object with data")
    if "eventId" not in event["data"]:
        event["data"].setdefault("event_id", str(uuid4()))
    return event


def send(client: TrackingClient, events: Sequence[Event]) -> list[Event]:
    """Send some; what it returns is to be sent later."""
    try:
        result = client.process_event_batch(events)
    except Unreachable as error:
        print(f"keeping {len(events)}: {error}", file=sys.stderr)
        return list(events)
    if not result.success and not result.errors:
        print(f"keeping {len(events)}: {result.error}", file=sys.stderr)
        return list(events)
    for refused in result.errors:
        if refused.retry_after is None:
            print(f"refused: {events[refused.index]}: {refused.details}", file=sys.stderr)
    return [events[later.index] for later in result.errors if later.retry_after is not None]


def drain(client: TrackingClient, kept: Kept) -> None:
    """Send what is kept, in order, up to the first that cannot be sent."""
    while kept.events:
        batch, behind = kept.events[:BATCH], kept.events[BATCH:]
        left = send(client, batch)
        kept.replace(left + behind)
        if left:
            return


def main() -> int:
    """First what is kept, then what comes in. Exit code 1 if something is kept or set aside."""
    parser = argparse.ArgumentParser(description="Send events, and keep them while that fails.")
    parser.add_argument("file", type=Path, help="where events are kept")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of ray-tracking")
    parser.add_argument("--api-key", help="with the scope ingest")
    tried = "how long it is tried before events are kept, and between two tries"
    parser.add_argument("--patience", type=float, default=5.0, metavar="SECONDS", help=tried)
    given = parser.parse_args()
    kept = Kept(given.file)
    unread = 0
    with TrackingClient(given.url, given.api_key, retry_for_s=given.patience) as client:
        drain(client, kept)
        tried_s = time.monotonic()
        for line in sys.stdin.buffer:
            try:
                event = read(line)
            except (ValueError, RecursionError) as error:
                if line.strip():
                    print(f"set aside in {kept.set_aside(line)}: {error}", file=sys.stderr)
                    unread += 1
                continue
            # While some are kept, all others go behind them.
            if kept.events or send(client, [event]):
                kept.add(event)
            if kept.events and time.monotonic() - tried_s > given.patience:
                drain(client, kept)
                tried_s = time.monotonic()
        drain(client, kept)
    print(f"{len(kept.events)} kept", file=sys.stderr)
    return 1 if kept.events or unread else 0


if __name__ == "__main__":
    sys.exit(main())

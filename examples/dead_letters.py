#!/usr/bin/env python3
"""
Looks into dead letters: events that Postgres refused for what they are.

    python examples/dead_letters.py                      # what there is, by reason
    python examples/dead_letters.py --redrive no_poison  # send those again, once mended
    python examples/dead_letters.py --watch              # each as it dies, from the service's Ray
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import urllib3

from ray_tracking import TrackingEventProcessor

Letter = dict[str, Any]


class DeadLetters:
    """The calls about dead letters."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = f"{url.rstrip('/')}/dead-letters"
        key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._pool = urllib3.PoolManager(headers=key)

    def dead(self) -> Iterator[Letter]:
        """Every letter that nobody has dealt with, page by page."""
        query = {"status": "dead"}
        while True:
            page = _read(self._pool.request("GET", self._url, fields=query))
            yield from page["items"]
            if page["next"] is None:
                return
            query["after"] = page["next"]

    def redrive(self, reason: str) -> dict[str, Any]:
        """Send those again whose reason holds this text."""
        return _read(self._pool.request("POST", f"{self._url}/redrive", json={"reason": reason}))


def _read(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    if answer.status >= 400:
        raise SystemExit(f"the service answered {answer.status}: {answer.data.decode()}")
    value: dict[str, Any] = answer.json()
    return value


def show(letters: Iterator[Letter]) -> None:
    """What they have in common, and the last one of each kind to look at."""
    kinds: dict[tuple[str, str], list[Letter]] = defaultdict(list)
    for letter in letters:
        kinds[letter["eventType"], letter["failureReason"]].append(letter)
    for (event_type, reason), same in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        campaigns = sorted({str(letter["campaignId"]) for letter in same})
        print(f"{len(same):>6}  {event_type}: {reason}")
        print(f"        campaigns: {', '.join(campaigns[:5])}{' …' * (len(campaigns) > 5)}")
        print(f"        last, {same[0]['failedAt']}: {json.dumps(same[0]['eventData'])}")
    if not kinds:
        print("no dead letters")


async def watch() -> None:
    """Print each as it dies, until Ctrl-C."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    processor = TrackingEventProcessor()
    processor.on("dead_letter", lambda letter: print(json.dumps(letter.to_dict()), flush=True))
    await processor.initialize()
    print("watching", flush=True)
    await ended.wait()
    await processor.shutdown()


def main() -> None:
    """Show, send again, or watch."""
    parser = argparse.ArgumentParser(description="Look into the dead letters of ray-tracking.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of ray-tracking")
    parser.add_argument("--api-key", help="with the scope admin")
    parser.add_argument("--redrive", metavar="TEXT", help="send those again whose reason has it")
    watched = "see them die, on the Ray that RAY_ADDRESS names, else on this machine's"
    parser.add_argument("--watch", action="store_true", help=watched)
    given = parser.parse_args()
    letters = DeadLetters(given.url, given.api_key)
    if given.watch:
        asyncio.run(watch())
    elif given.redrive:
        print(json.dumps(letters.redrive(given.redrive)))
    else:
        show(letters.dead())


if __name__ == "__main__":
    main()

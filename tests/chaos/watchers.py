"""
Live clients: what they are shown may only go up, but where a frame says ``correction``, and in
the end it is what SQL says.

A connection that ends is opened again, with the cursors of its campaigns. ``recovered: true``
then means that figures go on where they were; ``false`` that they begin anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.chaos.history import History
from tests.chaos.target import Target

CAMPAIGNS = ("campaign-0", "campaign-1", "campaign-2", "probe-0")
_WATCHERS = 6
_AGAIN_S = 0.3
_EQUAL_WITHIN_S = 20.0

_COUNTS = """
SELECT campaign_id,
  count(*) FILTER (WHERE event_type = 'EMAIL_OPEN' AND human) AS opens,
  count(DISTINCT lead_id) FILTER (WHERE event_type = 'EMAIL_OPEN' AND human) AS unique_opens,
  count(*) FILTER (WHERE event_type = 'LINK_CLICK' AND human) AS clicks,
  count(DISTINCT lead_id) FILTER (WHERE event_type = 'LINK_CLICK' AND human) AS unique_clicks,
  count(*) FILTER (WHERE event_type = 'EMAIL_REPLY') AS replies,
  count(DISTINCT lead_id) FILTER (WHERE event_type = 'EMAIL_REPLY') AS unique_replies,
  count(*) FILTER (WHERE event_type = 'EMAIL_BOUNCE' AND bounce_type = 'hard') AS hard
FROM (SELECT *, agent IS DISTINCT FROM 'machine' AS human FROM events
      WHERE campaign_id = ANY($1)) e GROUP BY 1
"""

Figures = dict[str, int]


def figures(counters: Mapping[str, Any]) -> Figures:
    """Those that the load has, flat."""
    names = ("opens", "uniqueOpens", "clicks", "uniqueClicks", "replies", "uniqueReplies")
    return {name: counters[name] for name in names} | {"hard": counters["bounces"]["hard"]}


class Memory:
    """
    What one watcher was shown of its campaigns.

    Args:
        name: Of the watcher.
        history: Gets what should not have been.
    """

    def __init__(self, name: str, history: History) -> None:
        self._name = name
        self._history = history
        self.shown: dict[str, Figures] = {}
        self.cursors: dict[str, str] = {}
        #: Campaigns whose figures may begin anew: a connection was lost.
        self.anew: set[str] = set()
        self.messages = 0

    def lost(self) -> None:
        """The connection has ended."""
        self.anew = set(self.shown)

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take a message in."""
        self.messages += 1
        for campaign, counters, may_go_back in self._figures_in(told):
            self.cursors[campaign] = told["cursor"]
            if counters is None:
                continue
            new, before = figures(counters), self.shown.get(campaign, {})
            back = {name: (before[name], new[name]) for name in before if new[name] < before[name]}
            if back and not may_go_back:
                self._history.misled.append(
                    f"{self._name}: {campaign} went back without a word: {back} in {told['event']}"
                )
            self.shown[campaign] = new

    def _figures_in(
        self, told: Mapping[str, Any]
    ) -> Iterator[tuple[str, Mapping[str, Any] | None, bool]]:
        event, data = told["event"], told["data"]
        if event == "subscribed":
            campaign = data["campaignId"]
            anew = campaign in self.anew and not data["recovered"]
            self.anew.discard(campaign)
            yield campaign, data["snapshot"], anew or "correction" in data
        elif event == "progress_batch":
            for each in data["events"]:
                yield each["campaignId"], each["counters"], False
        elif event in ("campaign_progress", "campaign_progress_detailed"):
            yield data["campaignId"], data["counters"], "correction" in data


class Watchers:
    """
    Some of them, plain and detailed.

    Args:
        url: Of the service.
        history: Gets what should not have been.
    """

    def __init__(self, url: str, history: History) -> None:
        self._url = url.replace("http", "ws", 1) + "/ws"
        self._history = history
        self.memories = [Memory(f"watcher-{n}", history) for n in range(_WATCHERS)]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def messages(self) -> int:
        """All that they heard."""
        return sum(memory.messages for memory in self.memories)

    def start(self) -> None:
        """Begin to watch."""
        self._tasks = [
            asyncio.create_task(self._watch(memory, detailed=number % 2 == 1))
            for number, memory in enumerate(self.memories)
        ]

    async def check(self, target: Target, patience: float) -> None:
        """When all is drained: is what they are shown what SQL says? And stop."""
        counted = {campaign: _of_row(None) for campaign in CAMPAIGNS} | {
            row["campaign_id"]: _of_row(row) for row in await target.sql(_COUNTS, list(CAMPAIGNS))
        }
        try:
            async with asyncio.timeout(_EQUAL_WITHIN_S * patience):
                while any(memory.shown != counted for memory in self.memories):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except TimeoutError:
            for number, memory in enumerate(self.memories):
                wrong = {
                    campaign: (memory.shown.get(campaign), rows)
                    for campaign, rows in counted.items()
                    if memory.shown.get(campaign) != rows
                }
                if wrong:
                    self._history.misled.append(f"watcher-{number}: shown and counted: {wrong}")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, memory: Memory, *, detailed: bool) -> None:
        while True:
            try:
                async with connect(
                    self._url, proxy=None, compression=None, open_timeout=5, max_size=None
                ) as socket:
                    for campaign in CAMPAIGNS:
                        asked = {
                            "action": "subscribe_campaign",
                            "campaignId": campaign,
                            "detailed": detailed,
                            "cursor": memory.cursors.get(campaign),
                        }
                        await socket.send(json.dumps(asked))
                    async for text in socket:
                        memory.hear(json.loads(text))
            except (OSError, TimeoutError, WebSocketException):
                pass
            memory.lost()
            await asyncio.sleep(_AGAIN_S)


def _of_row(row: Any) -> Figures:
    names = {
        "opens": "opens", "uniqueOpens": "unique_opens", "clicks": "clicks",
        "uniqueClicks": "unique_clicks", "replies": "replies",
        "uniqueReplies": "unique_replies", "hard": "hard",
    }  # fmt: skip
    return {name: row[column] if row else 0 for name, column in names.items()}

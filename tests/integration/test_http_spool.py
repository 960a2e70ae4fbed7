"""The log out of reach, seen by a client: what is acknowledged is kept, and ends as one row."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from ray_tracking.stores.spool import Spool
from tests.integration.test_http_tracking import Mail
from tests.support.events import item
from tests.support.proxy import Proxy
from tests.support.service import Answer, Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


class Cut(NamedTuple):
    """A service whose shard reaches the log through a network that fails."""

    stack: Stack
    service: Service
    network: Proxy
    directory: Path

    async def cut(self) -> None:
        """Take the log away; return when the shard has noticed."""
        self.network.refuse()
        self.network.cut()
        owner = self.stack.owners["shard-0"]

        async def noticed() -> bool:
            await self.service.post("/events", item(eventId=None))
            return (await owner.status())["breaker"]["state"] == "open"

        await eventually(noticed)

    async def open(self, eventId: str, **data: Any) -> Answer:
        """One open with a caller's id."""
        return await self.service.post("/events", item(eventId=eventId, **data))

    async def rows(self, *event_ids: str) -> Counter[str]:
        """How many rows each has."""
        rows = await self.stack.sql(
            "SELECT client_event_id FROM events WHERE client_event_id = ANY($1)", list(event_ids)
        )
        return Counter(row["client_event_id"] for row in rows)

    async def settle(self) -> None:
        """Return when nothing waits in the spool."""
        spooler = self.service.ports.spooler
        assert spooler is not None
        await eventually(lambda: spooler.events == 0, 20)


@pytest_asyncio.fixture(loop_scope="session")
async def cut(stack: Stack, tmp_path: Path) -> AsyncIterator[Cut]:
    """The log is in reach at first."""
    network, url = await stack.valkey_proxy()
    await stack.shard(redis_url=url)
    await stack.writer()
    service = await stack.service(spool=tmp_path / "spool", redis_url=url)
    yield Cut(stack, service, network, tmp_path / "spool")


async def test_an_event_that_the_log_cannot_take_is_spooled_and_becomes_one_row(cut: Cut) -> None:
    await cut.cut()
    answer = await cut.open("spooled-1")
    assert answer.status == 202
    assert answer.json["fallback"] is True
    assert answer.json["result"] is None
    assert answer.json["eventId"] == "spooled-1"
    assert not await cut.rows("spooled-1")

    await cut.network.accept()
    await cut.settle()
    await eventually(lambda: cut.rows("spooled-1"))
    assert await cut.rows("spooled-1") == {"spooled-1": 1}
    after = await eventually(lambda: not_spooled(cut))
    assert after.json["result"] is not None


async def not_spooled(cut: Cut) -> Answer | None:
    answer = await cut.open(f"after-{id(object())}")
    return None if "fallback" in answer.json else answer


async def test_a_batch_is_spooled_too(cut: Cut) -> None:
    await cut.cut()
    ids = [f"batch-{n}" for n in range(30)]
    events = [item(eventId=event_id, campaignId=f"c-{event_id}") for event_id in ids]
    answer = await cut.service.post("/events/batch", {"events": events})
    assert answer.status == 200
    assert answer.json["processed"] == 30
    assert answer.json["broadcasted"] == 0
    assert answer.json["fallback"] is True

    await cut.network.accept()
    await eventually(lambda: has_rows(cut, ids), 20)
    assert await cut.rows(*ids) == Counter(ids)


async def has_rows(cut: Cut, ids: list[str]) -> bool:
    return len(await cut.rows(*ids)) == len(ids)


async def test_a_hit_is_durable_without_the_log(cut: Cut) -> None:
    await cut.cut()
    mail = Mail(cut.service)
    pixel, click = await cut.service.get(mail.pixel), await cut.service.get(mail.click)
    assert (pixel.status, click.status) == (200, 302)
    assert pixel.headers["X-Tracking-Durable"] == click.headers["X-Tracking-Durable"] == "1"

    await cut.network.accept()
    await cut.settle()

    async def types() -> list[str]:
        rows = await cut.stack.sql(
            "SELECT event_type FROM events WHERE lead_id = $1 ORDER BY 1", mail.ids[1]
        )
        return [row["event_type"] for row in rows]

    await eventually(lambda: both(types))
    assert await types() == ["EMAIL_OPEN", "LINK_CLICK"]


async def both(types: Any) -> bool:
    return len(await types()) == 2


async def test_a_clients_repeat_of_a_spooled_event_is_one_row(cut: Cut) -> None:
    """Whether the repeat is spooled as well, or reaches the log first."""
    await cut.cut()
    assert (await cut.open("twice", campaignId="t")).status == 202
    assert (await cut.open("twice", campaignId="t")).status == 202
    await cut.network.accept()
    await eventually(lambda: not_spooled(cut))
    assert (await cut.open("twice", campaignId="t")).status in (200, 202)
    await cut.settle()
    await eventually(lambda: cut.rows("twice"))
    assert await cut.rows("twice") == {"twice": 1}


async def test_an_orphan_is_adopted_and_drained(cut: Cut) -> None:
    """Another process of this node has died and left its spool."""
    await cut.cut()
    assert (await cut.open("orphaned")).status == 202
    spooler = cut.service.ports.spooler
    assert spooler is not None
    await spooler.close()  # as the end of its process lets the lock go
    (spool_id,) = names(cut.directory)

    heir = await cut.stack.service(spool=cut.directory)
    assert heir.ports.spooler is not None
    await cut.network.accept()
    await eventually(lambda: cut.rows("orphaned"), 20)
    await eventually(lambda: spool_id not in names(cut.directory))
    assert await cut.rows("orphaned") == {"orphaned": 1}

    async def forgotten() -> bool:
        known = await cut.stack.redis.hgetall(f"{cut.stack.prefix}spools")
        return spool_id.encode() not in known

    await eventually(forgotten)


async def test_an_orphan_is_drained_that_was_adopted_while_an_empty_one_was_let_go(
    cut: Cut,
) -> None:
    """Its coming is not overlooked meanwhile."""
    await cut.cut()
    assert (await cut.open("behind")).status == 202
    spooler = cut.service.ports.spooler
    assert spooler is not None
    await spooler.close()
    for number in range(4):
        empty = cut.directory / f"{number:032x}"  # adopted in order
        empty.mkdir()
        (empty / "lock").touch()

    await cut.network.accept()
    await cut.stack.service(spool=cut.directory)
    await eventually(lambda: cut.rows("behind"), 20)


async def test_a_full_spool_is_a_503_and_never_a_2xx(stack: Stack, tmp_path: Path) -> None:
    network, url = await stack.valkey_proxy()
    await stack.shard(redis_url=url)
    service = await stack.service(spool=tmp_path, redis_url=url, spool_max_bytes=5000)
    network.refuse()
    network.cut()
    answers = [
        await service.post("/events", item(eventId=f"full-{n}", subject=None)) for n in range(40)
    ]
    spooled = [a for a in answers if a.status == 202]
    refused = [a for a in answers if a.status == 503]
    assert spooled
    assert refused
    assert len(spooled) + len(refused) == 40
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    mail = Mail(service)
    pixel = await service.get(mail.pixel)
    assert pixel.status == 200
    assert "X-Tracking-Durable" not in pixel.headers


async def test_without_a_spool_it_is_a_503(stack: Stack) -> None:
    network, url = await stack.valkey_proxy()
    await stack.shard(redis_url=url)
    service = await stack.service(redis_url=url)
    network.refuse()
    network.cut()
    answer = await service.post("/events", item())
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1


async def test_an_event_whose_shard_cannot_be_reached_was_never_sent_and_is_spooled(
    stack: Stack, tmp_path: Path
) -> None:
    """The first is in a call whose outcome nobody knows; those behind it are not."""
    await stack.shard()
    await stack.writer()
    service = await stack.service(spool=tmp_path, patience_s=0.5)
    stack.unreachable.add(0)
    first = asyncio.create_task(service.post("/events", item(eventId="in-the-call")))
    await eventually(lambda: service.ports.gatherer.room.events == 1)
    behind = await service.post("/events", item(eventId="behind"))
    assert (await first).status == 503
    assert behind.status == 202
    assert behind.json["fallback"] is True
    stack.unreachable.clear()

    async def row() -> list[Any]:
        return await stack.sql("SELECT 1 FROM events WHERE client_event_id = 'behind'")

    assert len(await eventually(row, 20)) == 1


async def test_the_spool_is_gone_when_it_is_not_needed(stack: Stack, tmp_path: Path) -> None:
    await stack.shard()
    service = await stack.service(spool=tmp_path)
    spooler = service.ports.spooler
    assert spooler is not None
    await spooler.close()
    assert names(tmp_path) == set()


async def test_what_is_on_disk_is_what_was_acknowledged(cut: Cut) -> None:
    """A 2xx is sent only after the fsync: whoever reads the disk then finds it."""
    await cut.cut()
    before = await spooled_events(cut.directory)
    assert (await cut.open("on-disk")).status == 202
    assert await spooled_events(cut.directory) == before + 1


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def copy(spool: Path, to: Path) -> None:
    shutil.copytree(spool, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lock"))


async def spooled_events(directory: Path) -> int:
    """Read as a successor would, from a copy: the owner has the lock."""
    total = 0
    for spool_id in names(directory) - {"corrupt"}:
        copy(directory / spool_id, directory.parent / "copies" / spool_id)
        spool = await Spool.adopt(directory.parent / "copies", spool_id)
        assert spool is not None
        total += spool.events
        await spool.close(remove_if_empty=False)
    return total

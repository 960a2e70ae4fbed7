"""The integration ring: the real parts on a real Postgres and a real Valkey, without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ray_tracking.stores.embedded import EmbeddedServers, ServerUrls
from tests.support.service import Service
from tests.support.shards import ACCEPTED, Faulty, verdicts
from tests.support.stack import Stack


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerUrls]:
    """One Postgres and one Valkey for everybody. They live in the session's loop."""
    running = await EmbeddedServers.start(
        tmp_path_factory.mktemp("servers"), postgres=True, valkey=True
    )
    yield running.urls
    await running.stop()


def _stack(servers: ServerUrls) -> Stack:
    assert servers.database_url is not None
    assert servers.redis_url is not None
    return Stack(servers.database_url, servers.redis_url)


@pytest_asyncio.fixture(loop_scope="session")
async def stack(servers: ServerUrls) -> AsyncIterator[Stack]:
    """A deployment of this test's own."""
    stack = _stack(servers)
    await stack.open()
    yield stack
    await stack.close()


@pytest_asyncio.fixture(loop_scope="session")
async def faulty(stack: Stack) -> Faulty:
    """A shard with its connections open: it has appended one event to each partition."""
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url)
    first = [stack.event(campaignId=stack.campaign_in(n)) for n in range(stack.partitions)]
    assert set(verdicts(await owner.submit(*first))) == {ACCEPTED}
    return Faulty(stack, owner, proxy, first)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(servers: ServerUrls) -> AsyncIterator[Stack]:
    """A deployment that the tests of a module share: shard, writer and HTTP app are up."""
    stack = _stack(servers)
    await stack.open()
    await stack.shard()
    await stack.writer()
    await stack.service()
    yield stack
    await stack.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(shared: Stack) -> Service:
    """The HTTP app of that deployment."""
    return shared.services[0]

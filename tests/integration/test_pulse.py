"""Postgres, asked again and again whether it is there."""

from __future__ import annotations

import pytest

from ray_tracking.stores.pulse import PulseReader
from tests.support.letters import put_letter
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def test_it_is_there_and_letters_that_wait_are_counted(stack: Stack) -> None:
    pulse = PulseReader(stack.database_url, stack.schema, "tests")
    assert await pulse.look(2.0) == (True, None, 0)
    await put_letter(stack)
    await put_letter(stack, status="redriven")
    await put_letter(stack, status="discarded")
    assert (await pulse.look(2.0)).dead_letters == 1
    await pulse.close()


async def test_it_is_away_says_why_and_is_there_again(stack: Stack) -> None:
    proxy, url = await stack.postgres_proxy()
    pulse = PulseReader(url, stack.schema, "tests")
    assert (await pulse.look(2.0)).is_up
    proxy.refuse()
    proxy.cut()
    away = await pulse.look(2.0)
    assert not away.is_up
    assert away.trouble

    await proxy.accept()
    assert await eventually(lambda: pulse.look(2.0))
    assert (await pulse.look(2.0)).is_up
    await pulse.close()


async def test_a_network_that_died_without_a_word_is_given_up_in_time(stack: Stack) -> None:
    proxy, url = await stack.postgres_proxy()
    pulse = PulseReader(url, stack.schema, "tests")
    assert (await pulse.look(2.0)).is_up
    proxy.pause()
    assert await pulse.look(0.2) == (False, "no answer in 0.2 s", None)
    proxy.resume()
    assert (await pulse.look(2.0)).is_up
    await pulse.close()

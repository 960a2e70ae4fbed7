"""``ray-tracking status``, and what every command says of a service that it cannot ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from click.testing import CliRunner, Result

from ray_tracking import cli
from tests.support.service import free_port
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def run(*arguments: str, key: str = "") -> Result:
    """A command, as a shell runs it."""
    env = {"RAY_TRACKING_API_KEY": key}
    return await asyncio.to_thread(CliRunner(env=env).invoke, cli.main, arguments)


def one_line(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("ray-tracking: ")


@pytest_asyncio.fixture(loop_scope="session")
async def stranger() -> AsyncIterator[str]:
    """Something else that listens; what it answers is in the path that it is called below."""

    async def answer(request: web.Request) -> web.Response:
        kind = request.path.split("/")[1]
        if kind == "page":
            return web.Response(text="<html>", content_type="text/html")
        if kind == "broken":
            return web.Response(body=b"{", content_type="application/json")
        if kind == "list":
            return web.json_response([])
        return web.json_response({"detail": "Not Found"}, status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.mark.parametrize(
    "url", ["localhost:18322", "127.0.0.1:18322", "tracking", "http://h:99999"]
)
async def test_what_is_no_url_is_told_how_one_looks(url: str) -> None:
    for command in (["status"], ["limits", "spring"], ["dead-letters", "list"]):
        said = one_line(await run(*command, "--url", url))
        assert said == f"{url!r} is not a URL such as http://127.0.0.1:8000"
    played = await run("simulate", "--url", url)
    assert f"ray-tracking: {url!r} is not a URL such as " in played.stderr


async def test_where_nothing_listens_that_is_said() -> None:
    said = one_line(await run("status", "--url", f"http://127.0.0.1:{free_port()}"))
    assert said.startswith("nothing listens at ")


@pytest.mark.parametrize(
    ("kind", "status"), [("page", 200), ("broken", 200), ("list", 200), ("json", 404)]
)
async def test_another_server_is_not_taken_for_this_one(
    stranger: str, kind: str, status: int
) -> None:
    url = f"{stranger}/{kind}"
    said = one_line(await run("status", "--url", url))
    assert said == f"{url} answered {status}, but not as ray-tracking does: is --url right?"


async def test_a_key_that_is_missing_is_told_where_to_give_it(stack: Stack) -> None:
    service = await stack.service(api_keys=["reads:read"])

    for command in (["status"], ["limits", "spring"], ["dead-letters", "list"]):
        said = one_line(await run(*command, "--url", service.url))
        assert said.startswith(f"{service.url} answered 401: ")
        assert said.endswith("; give a key with --api-key or RAY_TRACKING_API_KEY")
    assert (await run("status", "--url", service.url, key="reads")).exit_code in (0, 1)

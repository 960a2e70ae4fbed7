"""``ray-tracking dead-letters``, against a service that runs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from ray_tracking import cli
from tests.support.letters import put_letter, status_of
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

START = datetime(2026, 11, 20, 19, tzinfo=UTC)
KEY = "key-that-rules"
NOBODY = "01a20a02-cecb-7c3e-9cc4-b1f8e33ac75f"


async def call(url: str, *arguments: str, key: str | None = KEY, said: str = "") -> Result:
    """The command, as a shell runs it; ``said`` is typed in."""
    name, *more = arguments
    environment = {"RAY_TRACKING_API_KEY": key}
    # In a thread, because the command has a loop of its own.
    return await asyncio.to_thread(
        CliRunner(env=environment).invoke,
        cli.main,
        ["dead-letters", name, "--url", url, *more],
        input=said,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(stack: Stack) -> Service:
    """A service with keys, over a log and without a writer."""
    await stack.shard()
    return await stack.service(api_keys=[f"{KEY}:admin", "key-that-reads:read"], patience_s=0.1)


def is_one_line(result: Result, *words: str) -> bool:
    """Whether it ended as what goes wrong on purpose does."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line.startswith("ray-tracking: ") and all(word in line for word in words)


# -- list and show -------------------------------------------------------------------


async def test_the_list_is_a_table(stack: Stack, guarded: Service) -> None:
    first = await put_letter(stack, campaignId="spring", reason="too\n  large", failed_at=START)
    second = await put_letter(
        stack,
        event_type="ACCOUNT_HEALTH_UPDATE",
        reason="\x1b[31mred\u202e",
        failed_at=START + timedelta(minutes=1),
        attempts=12,
        status="redriven",
    )

    result = await call(guarded.url, "list")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "ID                                    FAILED AT                 STATUS    TRIES"
        "  TYPE                   CAMPAIGN  REASON",
        f"{second}  2026-11-20T19:01:00.000Z  redriven  12"
        "     ACCOUNT_HEALTH_UPDATE  -         ?[31mred?",
        f"{first}  2026-11-20T19:00:00.000Z  dead      1"
        "      EMAIL_OPEN             spring    too large",
    ]
    assert result.stderr == ""


async def test_the_list_is_chosen_and_goes_on_page_by_page(stack: Stack, guarded: Service) -> None:
    wanted = [
        await put_letter(stack, campaignId="c", reason="b", failed_at=START + timedelta(0, n))
        for n in range(3)
    ]
    await put_letter(stack, campaignId="d", reason="b")
    await put_letter(stack, campaignId="c", reason="a")
    await put_letter(stack, campaignId="c", reason="b", status="discarded")
    chosen = ["--campaign", "c", "--reason", "B", "--status", "dead", "--limit", "2"]

    first = await call(guarded.url, "list", *chosen)
    after = first.stderr.split()[-1]
    second = await call(guarded.url, "list", *chosen, "--after", after)

    rows = [line.split()[0] for page in (first, second) for line in page.stdout.splitlines()[1:]]
    assert rows == [str(letter_id) for letter_id in wanted[::-1]]
    assert second.stderr == ""


async def test_the_list_as_json_is_what_the_api_gives(stack: Stack, guarded: Service) -> None:
    await put_letter(stack)
    headers = {"Authorization": f"Bearer {KEY}"}

    result = await call(guarded.url, "list", "--json")

    assert json.loads(result.stdout) == (await guarded.get("/dead-letters", headers=headers)).json


async def test_a_list_of_nothing_says_so_with_its_head_only(guarded: Service) -> None:
    result = await call(guarded.url, "list")

    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)


async def test_one_letter_is_shown_with_its_event(stack: Stack, guarded: Service) -> None:
    letter_id = await put_letter(stack, leadId="ada")

    result = await call(guarded.url, "show", str(letter_id))

    assert result.exit_code == 0
    assert result.stdout.startswith('{\n  "id": ')
    assert json.loads(result.stdout)["eventData"]["leadId"] == "ada"


# -- redrive -------------------------------------------------------------------------


async def test_named_letters_are_sent_again_and_each_is_told(
    stack: Stack, guarded: Service
) -> None:
    dead = await put_letter(stack)
    gone = await put_letter(stack, status="redriven")

    result = await call(guarded.url, "redrive", str(dead), str(gone), NOBODY)

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{dead}  redriven",
        f"{gone}  not redriven: the letter is redriven already",
        f"{NOBODY}  not redriven: there is no /dead-letters/{NOBODY}/redrive",
    ]
    assert await stack.logged_ids() == [dead.bytes]


async def test_all_letters_are_sent_again_when_it_is_confirmed(
    stack: Stack, guarded: Service
) -> None:
    wanted = await put_letter(stack, campaignId="c", reason="a")
    await put_letter(stack, campaignId="d", reason="a")
    chosen = ["--all", "--campaign", "c", "--reason", "A"]

    for said in ("n\n", "\n", ""):
        result = await call(guarded.url, "redrive", *chosen, said=said)
        assert result.exit_code == 1
        assert "'c'" in result.output
    assert await stack.logged_ids() == []

    result = await call(guarded.url, "redrive", *chosen, said="y\n")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "redriven 1, failed 0")
    assert await stack.logged_ids() == [wanted.bytes]

    result = await call(guarded.url, "redrive", "--all", "--yes")
    assert (result.exit_code, result.stdout) == (0, "redriven 2, failed 0\n")


async def test_what_the_log_does_not_take_is_exit_code_1(stack: Stack, guarded: Service) -> None:
    letter_id = await put_letter(stack)
    stack.unreachable = {0}

    one = await call(guarded.url, "redrive", str(letter_id))
    every = await call(guarded.url, "redrive", "--all", "--yes")

    assert (one.exit_code, every.exit_code) == (1, 1)
    assert f"{letter_id}  not redriven: " in one.stdout
    assert every.stdout == "redriven 0, failed 1\n"
    assert "come again" in every.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [NOBODY, "--all"],
        ["--campaign", "c"],
        [NOBODY, "--campaign", "c"],
        ["not-an-id"],
        [""],
    ],
)
async def test_what_is_not_clear_is_not_sent(
    stack: Stack, guarded: Service, arguments: list[str]
) -> None:
    await put_letter(stack, campaignId="c")

    result = await call(guarded.url, "redrive", "--yes", *arguments)

    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert await stack.logged_ids() == []


# -- discard -------------------------------------------------------------------------


async def test_letters_are_given_up_when_it_is_confirmed(stack: Stack, guarded: Service) -> None:
    dead = await put_letter(stack)
    gone = await put_letter(stack, status="redriven")

    result = await call(guarded.url, "discard", str(dead), said="n\n")
    assert (result.exit_code, await status_of(stack, dead)) == (1, "dead")

    result = await call(guarded.url, "discard", str(dead), said="y\n")
    assert (result.exit_code, await status_of(stack, dead)) == (0, "discarded")

    result = await call(guarded.url, "discard", "--yes", str(gone), str(dead))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{gone}  not discarded: the letter is redriven, and is not given up",
        f"{dead}  discarded",
    ]


# -- what goes wrong -----------------------------------------------------------------

COMMANDS = [
    ["list"],
    ["show", NOBODY],
    ["redrive", NOBODY],
    ["redrive", "--all", "--yes"],
    ["discard", "--yes", NOBODY],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_what_goes_wrong_is_one_line(guarded: Service, command: list[str]) -> None:
    for key, status in ((None, "401"), ("no-such-key", "401"), ("key-that-reads", "403")):
        result = await call(guarded.url, *command, key=key)
        assert is_one_line(result, guarded.url, status, "API key")
        assert str(key) not in result.output

    nowhere = "http://127.0.0.1:9"
    assert is_one_line(await call(nowhere, *command), nowhere, "--url")
    assert is_one_line(await call(f"{guarded.url}/livez#", *command), guarded.url)


async def test_a_letter_that_is_not_there_cannot_be_shown(guarded: Service) -> None:
    assert is_one_line(await call(guarded.url, "show", NOBODY), "404", NOBODY)


async def test_a_cursor_that_is_none_is_refused(guarded: Service) -> None:
    result = await call(guarded.url, "list", "--after", str(uuid4()))

    assert is_one_line(result, "422", "after", "cursor")


async def test_without_postgres_it_says_so(stack: Stack) -> None:
    proxy, url = await stack.postgres_proxy()
    service = await stack.service(database_url=url)
    proxy.refuse()
    proxy.cut()

    for command in (["list"], ["redrive", "--all", "--yes"]):
        assert is_one_line(await call(service.url, *command), "503", "Postgres")


async def test_status_still_tells_how_the_service_is(guarded: Service) -> None:
    """It asks by the same means."""
    ask = CliRunner(env={"RAY_TRACKING_API_KEY": "key-that-reads"}).invoke
    result = await asyncio.to_thread(ask, cli.main, ["status", "--json", "--url", guarded.url])
    components = json.loads(result.stdout)["components"]
    worse = [name for name, its in components.items() if its["status"] != "healthy"]
    assert (result.exit_code, worse) == (0, ["websocket"])  # there is no broadcaster here

    result = await asyncio.to_thread(ask, cli.main, ["status", "--url", "http://127.0.0.1:9"])
    assert is_one_line(result, "nothing listens")

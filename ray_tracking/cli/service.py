"""A running service, asked over HTTP by the commands that need one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import click

from ray_tracking.errors import StartError, Unavailable
from ray_tracking.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])
_ANSWER_WITHIN_S = 10.0
API_KEY_VARIABLE = "RAY_TRACKING_API_KEY"
KEY_HINT = f"give a key with --api-key or {API_KEY_VARIABLE}"


def service_options(scope: str) -> Callable[[_Command], _Command]:
    """
    The options that say which service is meant: ``url`` and ``api_key``.

    Args:
        scope: What the key must open.
    """

    def add(command: _Command) -> _Command:
        key = click.option(
            "--api-key", envvar=API_KEY_VARIABLE, help=f"A key with the scope {scope}."
        )
        return click.option("--url", help="Of the service; else from the settings.")(key(command))

    return add


class Service:
    """
    A service and how to ask it.

    Args:
        session: Which has the key.
        base: Where the service is.
    """

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self.base = base

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        value: Any = None,
        within_s: float | None = _ANSWER_WITHIN_S,
    ) -> tuple[int, dict[str, Any]]:
        """
        One call: the status, and the JSON object that came with it.

        Args:
            method: Such as ``GET``.
            path: From the slash on.
            query: Its parameters.
            value: Sent as JSON, if given.
            within_s: How long the answer may take; None for as long as it does.

        Raises:
            StartError: In one line, if the service's URL is none.
            Unavailable: In one line, if there is no such answer.
        """
        timeout = aiohttp.ClientTimeout(total=within_s, sock_connect=_ANSWER_WITHIN_S)
        try:
            async with self._session.request(
                method, self.base + path, params=query, json=value, timeout=timeout
            ) as answer:
                body = await answer.json()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise not_a_url(self.base) from None
        except aiohttp.ClientConnectorError:
            raise Unavailable(
                f"nothing listens at {self.base}: is it running, and is --url right?"
            ) from None
        except (aiohttp.ContentTypeError, ValueError):
            raise self._not_ours(answer.status) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or "it took too long"
            raise Unavailable(f"{self.base} does not answer: {reason}") from None
        if not isinstance(body, dict):
            raise self._not_ours(answer.status)
        return answer.status, body

    def refusal(self, status: int, body: Mapping[str, Any]) -> Unavailable:
        """An answer that is none, as one line."""
        if "error" not in body:
            return self._not_ours(status)
        hint = f"; {KEY_HINT}" if status in (401, 403) else ""
        return Unavailable(f"{self.base} answered {status}: {reason_of(body)}{hint}")

    def _not_ours(self, status: int) -> Unavailable:
        return Unavailable(
            f"{self.base} answered {status}, but not as ray-tracking does: is --url right?"
        )


def not_a_url(text: str) -> StartError:
    """For what was given as the URL of a service."""
    return StartError(f"{text!r} is not a URL such as http://127.0.0.1:8000")


def reason_of(body: Mapping[str, Any]) -> str:
    """Why something was refused, with each field that was wrong."""
    reason = str(body.get("error", "no reason given"))
    details = [f"{one['field']} {one['message']}" for one in body.get("details", ())]
    return "; ".join([reason, *details])


@asynccontextmanager
async def reach(url: str | None, api_key: str | None) -> AsyncIterator[Service]:
    """
    A service, for as long as it is needed.

    Args:
        url: Where it is; else the settings say so.
        api_key: If it has keys.
    """
    base = (url or Settings.load().public_base_url).rstrip("/")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Service(session, base)

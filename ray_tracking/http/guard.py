"""Handlers of Starlette's routes that need a scope: who may pass, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking.errors import RequestError
from ray_tracking.http.asgi import ClientGone, told
from ray_tracking.http.paging import database_away
from ray_tracking.http.ports import Ports
from ray_tracking.settings import Scope
from ray_tracking.stores.failures import StoreUnavailable


class _HasPorts(Protocol):
    ports: Ports


_Calls = TypeVar("_Calls", bound=_HasPorts)
_Handler = Callable[[_Calls, Request], Awaitable[Response]]


def needs(scope: Scope) -> Callable[[_Handler[_Calls]], _Handler[_Calls]]:
    """Ask for the scope first, and answer what the handler raises on purpose."""

    def wrap(handler: _Handler[_Calls]) -> _Handler[_Calls]:
        @wraps(handler)
        async def guard(self: _Calls, request: Request) -> Response:
            self.ports.access.require(request.scope, scope)
            try:
                return await handler(self, request)
            except RequestError as error:
                status, _, value = told(error)
                return JSONResponse(value, status)
            except StoreUnavailable:
                return database_away()
            except ClientGone:
                return Response()  # that nobody reads

        return guard

    return wrap

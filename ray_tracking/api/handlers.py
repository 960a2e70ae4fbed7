"""
Who is told of what happens.

Each handler has a queue and a task of its own: one that fails or is slow hurts no other, nor
whoever has something to tell. One that is too slow misses the oldest of what waits for it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

#: What waits for one handler: the events of a whole batch come at once.
MAX_WAITING = 10_000

Handler = Callable[..., Any]

log = logging.getLogger("ray_tracking.handlers")


class Handlers:
    """
    The handlers of one processor.

    Args:
        names: The events that there are.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._handlers: dict[str, list[_Registered]] = {name: [] for name in names}
        #: Those that have been taken away, and have something to do yet.
        self._leaving: set[_Registered] = set()

    def on(self, name: str, handler: Handler, *, once: bool = False) -> None:
        """Tell it of every such event from now on, or of the next one only."""
        self._of(name).append(_Registered(name, handler, once=once))

    def off(self, name: str, handler: Handler) -> None:
        """Tell it of no more. One that was never told of any is no error."""
        registered = self._of(name)
        for each in [each for each in registered if each.handler == handler]:
            registered.remove(each)
            each.forget()

    def wants(self, *names: str) -> bool:
        """Whether anybody wants to hear of any of these."""
        return any(self._of(name) for name in names)

    def emit(self, name: str, *payload: Any) -> None:
        """Tell everybody; returns at once."""
        registered = self._of(name)
        for each in list(registered):
            if each.once:
                registered.remove(each)
                self._leaving.add(each)
            each.tell(payload)
        self._leaving = {each for each in self._leaving if each.is_busy}

    async def finish(self, within_s: float) -> None:
        """Return when everybody has heard everything, or after some time."""
        everybody = [each for handlers in self._handlers.values() for each in handlers]
        tasks = [each.task for each in [*everybody, *self._leaving] if each.task and each.is_busy]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()

    def _of(self, name: str) -> list[_Registered]:
        if name not in self._handlers:
            raise ValueError(f"there is no event {name!r}; there are {', '.join(self._names)}")
        return self._handlers[name]


class _Registered:
    """A handler of one event."""

    def __init__(self, name: str, handler: Handler, *, once: bool) -> None:
        if not callable(handler):
            raise TypeError(f"the handler of {name!r} cannot be called")
        self.handler = handler
        self.once = once
        self.task: asyncio.Task[None] | None = None
        self._name = name
        self._waiting: deque[tuple[Any, ...]] = deque(maxlen=MAX_WAITING)
        self._is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object may be called
        )
        self._has_failed = False
        self._has_missed = False

    @property
    def is_busy(self) -> bool:
        return self.task is not None and not self.task.done()

    def tell(self, payload: tuple[Any, ...]) -> None:
        if len(self._waiting) == MAX_WAITING and not self._has_missed:
            self._has_missed = True
            log.warning("a handler of %r is too slow, and misses some", self._name)
        self._waiting.append(payload)
        if not self.is_busy:
            self.task = asyncio.create_task(self._run())

    def forget(self) -> None:
        """It wants to hear no more."""
        self._waiting.clear()

    async def _run(self) -> None:
        while self._waiting:
            payload = self._waiting.popleft()
            try:
                if self._is_async:
                    await self.handler(*payload)
                    continue
                # In a thread: it may wait for something.
                result = await asyncio.to_thread(self.handler, *payload)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                if not self._has_failed:
                    log.exception("a handler of %r failed; said once", self._name)
                self._has_failed = True

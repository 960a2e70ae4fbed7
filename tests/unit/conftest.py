"""The unit ring: no servers, no Ray, no network."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that wants a server belongs into another ring."""

    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a unit test must not connect to {address!r}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)

"""Reading requests."""

from __future__ import annotations

from ray_tracking.http.asgi import header, headers


def test_of_a_header_that_is_there_twice_the_first_counts() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"\xe4"), (b"a", b"2")]}

    assert headers(scope, b"a", b"none", b"b") == ["1", None, "\xe4"]
    assert [header(scope, name) for name in (b"a", b"none", b"b")] == ["1", None, "\xe4"]

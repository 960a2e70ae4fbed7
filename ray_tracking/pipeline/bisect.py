"""
Which rows of a flush are at fault? Halving, with as few tries as that takes.
"""

from __future__ import annotations

from collections.abc import Generator


def failing(rows: int) -> Generator[range, bool, list[int]]:
    """
    Find the rows that fail alone, where all of them together have failed.

    Yields spans of rows to try, and is sent whether they failed. To find one row in ``n``
    it takes at most ``2 * log2(n)`` tries; where all fail, less than ``2 * n``.

    Returns:
        The rows that fail alone. None of them, when it takes several rows to fail, or when
        whatever it was has passed: then no row is at fault.
    """
    return (yield from _within(range(rows), tried=True))


def _within(span: range, *, tried: bool) -> Generator[range, bool, list[int]]:
    """
    Args:
        span: Rows that fail.
        tried: It was tried, and not only concluded from its other half.
    """
    if len(span) <= 1:
        return list(span) if tried or (yield span) else []
    middle = span.start + len(span) // 2
    left, right = range(span.start, middle), range(middle, span.stop)
    if not (yield left):
        return (yield from _within(right, tried=False))
    found = yield from _within(left, tried=True)
    if (yield right):
        found += yield from _within(right, tried=True)
    return found

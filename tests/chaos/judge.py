"""
The judge: what clients remember against what is in the database. A pure function.

* **Conservation**: what was acknowledged is one row or one dead letter.
* **Uniqueness**: no event, no ``event_id`` and no place in the log twice; and no row that
  nobody sent.
* **Order**: a client's later request stands behind its earlier one in the same lane of its
  campaign; inside a request, items stand in their order; and the row stands where the
  acknowledgement said.
* **Counts**: the figures of every campaign are what its rows say.
* **Honesty**: no "duplicate" of what was never sent before; no answer but the documented ones.
* **Liveness**: when a fault is over, events are taken, and everything drains.
* **Live**: figures that a subscriber is shown go back only where that is said, and end as SQL
  counts them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from tests.chaos.history import History, Letter, Loss, Place, Row, Sent

#: A letter that was sent again is a row, and the row counts.
_GONE = "redriven"


class Violation(NamedTuple):
    """A promise that was broken, and how."""

    promise: str
    what: str


def judge(
    history: History,
    rows: Sequence[Row],
    letters: Sequence[Letter],
    differences: Sequence[str] = (),
) -> list[Violation]:
    """
    Every violation of every promise; none when all is well.

    Args:
        history: What the clients remember.
        rows: Every row of ``events``.
        letters: Every dead letter.
        differences: Figures that are not what the rows say.
    """
    dead = [letter for letter in letters if letter.status != _GONE]
    return [
        *(Violation("conservation", text) for text in _missing(history, rows, dead)),
        *(Violation("uniqueness", text) for text in _doubled(history, rows, dead)),
        *(Violation("order", text) for text in _misplaced(history, rows)),
        *(Violation("order", text) for text in _overtaken(history, rows)),
        *(Violation("honesty", text) for text in _untrue(history)),
        *(Violation("counts", text) for text in differences),
        *(Violation("liveness", text) for text in history.stuck),
        *(Violation("live", text) for text in history.misled),
    ]


def _missing(history: History, rows: Sequence[Row], dead: Sequence[Letter]) -> Iterator[str]:
    found = {row.key for row in rows} | {letter.key for letter in dead}
    for sent in history.events.values():
        kept = [ack for ack in sent.acks if not _lost(ack.at_s, history.losses)]
        if kept and sent.key not in found:
            yield f"{sent.key} was acknowledged ({_told(sent)}) and is neither row nor letter"


def _doubled(history: History, rows: Sequence[Row], dead: Sequence[Letter]) -> Iterator[str]:
    counts = Counter(row.key for row in rows)
    counts.update(letter.key for letter in dead)
    for key, count in counts.items():
        sent = history.events.get(key)
        if sent is None:
            yield f"{key} is in the database, and nobody sent it"
        elif count > 1 and not _sent_around(sent, history.losses):
            yield f"{key} is there {count} times ({_told(sent)})"
    yield from _twice("event_id", [row.event_id for row in rows] + [x.event_id for x in dead])
    yield from _twice("place in the log", [row.place for row in rows])


def _twice(what: str, values: Iterable[object]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{what} {value} is there {count} times"


def _misplaced(history: History, rows: Sequence[Row]) -> Iterator[str]:
    """An acknowledgement names a place, and the row stands at another."""
    places = {row.key: row.place for row in rows}
    for sent in history.events.values():
        stands = places.get(sent.key)
        if stands is None or _sent_around(sent, history.losses):
            continue
        for ack in sent.acks:
            if ack.place is not None and ack.place != stands:
                yield f"{sent.key} was acknowledged at {_at(ack.place)} and stands at {_at(stands)}"


def _overtaken(history: History, rows: Sequence[Row]) -> Iterator[str]:
    """A later event of a client stands before an earlier one, in one lane of one campaign."""
    lines: dict[tuple[str, str, int, str], list[tuple[Sent, Place]]] = defaultdict(list)
    for row in rows:
        sent = history.events.get(row.key)
        if sent is not None and _has_an_order(sent, history.losses):
            line = (sent.client, sent.campaign, row.place.partition, row.place.lane)
            lines[line].append((sent, row.place))
    for line in lines.values():
        line.sort(key=lambda pair: (pair[0].turn, pair[0].index))
        highest: tuple[Sent, Place] | None = None  # of the turns before
        for _, items in groupby(line, key=lambda pair: pair[0].turn):
            turn = list(items)
            if highest is not None:
                yield from _before(turn, highest)
            # Items of one request that had to be sent again have lost their order.
            fresh = [pair for pair in turn if pair[0].attempts == 1]
            for earlier, later in pairwise(fresh):
                yield from _before([later], earlier)
            highest = max([*turn, *([highest] if highest else [])], key=lambda pair: pair[1])


def _before(pairs: Iterable[tuple[Sent, Place]], earlier: tuple[Sent, Place]) -> Iterator[str]:
    """Those that stand before something that was sent before them."""
    for sent, place in pairs:
        if place < earlier[1]:
            yield (
                f"{sent.key} ({_at(place)}) was sent after {earlier[0].key} "
                f"({_at(earlier[1])}) and stands before it"
            )


def _has_an_order(sent: Sent, losses: Sequence[Loss]) -> bool:
    in_log = sent.acks and not any(ack.fallback for ack in sent.acks)
    return bool(in_log) and sent.in_turn and not _sent_around(sent, losses)


def _untrue(history: History) -> Iterator[str]:
    yield from history.improper
    for sent in history.events.values():
        if sent.attempts == 1 and any(ack.duplicate for ack in sent.acks):
            yield f"{sent.key} was called a duplicate when it was sent for the first time"


def _lost(at_s: float, losses: Sequence[Loss]) -> bool:
    return any(at_s <= loss.until_s for loss in losses)


def _sent_around(sent: Sent, losses: Sequence[Loss]) -> bool:
    """Sent before a loss was accepted and again after it began: nobody could know the first."""
    return any(sent.first_s <= loss.until_s and sent.last_s >= loss.from_s for loss in losses)


def _told(sent: Sent) -> str:
    if not sent.acks:
        return f"{sent.attempts} attempts, no acknowledgement"
    said = [
        ("duplicate" if ack.duplicate else "accepted")
        + (" by the spool" if ack.fallback else "")
        + (f" at {_at(ack.place)}" if ack.place else "")
        for ack in sent.acks
    ]
    return f"{sent.attempts} attempts: {', '.join(said)}"


def _at(place: Place) -> str:
    return f"{place.partition}/{place.lane} {place.epoch}-{place.seq}#{place.index}"

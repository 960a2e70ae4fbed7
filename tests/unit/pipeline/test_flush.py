"""What a flush holds: rows by day, in the order of the log."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from ray_tracking.events import Lane
from ray_tracking.pipeline.append import Entry, EntryId, decode_entry, encode_batch
from ray_tracking.pipeline.books import Books
from ray_tracking.pipeline.flush import Move, Place, copy_parts, places, redriven
from ray_tracking.pipeline.route import REDRIVE, Submission
from ray_tracking.pipeline.rows import copy_tuples
from tests.unit.pipeline.samples import NOW_MS, minted, submission

DAY_MS = 86_400_000
WHERE = (3, 1)


def entry(*batch: Submission, seq: int = 2) -> Entry:
    return decode_entry(b"7-%d" % seq, encode_batch(batch, total=9, appended_ms=NOW_MS))


def test_the_rows_of_one_day_are_one_part() -> None:
    rows = [submission(n) for n in range(3)]

    parts = list(copy_parts(WHERE, entry(*rows)))

    tuples = copy_tuples(3, Lane.NORMAL, 7, 2, enumerate(row.row for row in rows))
    assert parts == [(date(2026, 11, 23), tuples)]


def test_rows_go_to_their_days_and_keep_their_numbers() -> None:
    rows = [submission(n, at_ms=NOW_MS - DAY_MS * (n % 2)) for n in range(4)]

    parts = dict(copy_parts(WHERE, entry(*rows)))

    def tuples(*numbers: int) -> bytes:
        return copy_tuples(3, Lane.NORMAL, 7, 2, [(n, rows[n].row) for n in numbers])

    assert parts == {date(2026, 11, 23): tuples(0, 2), date(2026, 11, 22): tuples(1, 3)}


def test_rows_that_are_not_wanted_are_left_out() -> None:
    rows = [submission(n, at_ms=NOW_MS - DAY_MS * (n == 1)) for n in range(3)]

    parts = dict(copy_parts(WHERE, entry(*rows), lambda place: place.row == 2))

    assert parts == {date(2026, 11, 23): copy_tuples(3, Lane.NORMAL, 7, 2, [(2, rows[2].row)])}


def test_every_event_has_its_place() -> None:
    one, other = entry(submission(1), submission(2)), entry(submission(3), seq=3)
    moves = [Move(WHERE, EntryId(7, 1), EntryId(7, 3), [one, other])]

    assert places(moves) == [
        Place(WHERE, EntryId(7, 2), 0),
        Place(WHERE, EntryId(7, 2), 1),
        Place(WHERE, EntryId(7, 3), 0),
    ]
    assert moves[0].events == 3


def test_letters_that_were_sent_again_are_known_by_their_flag() -> None:
    batch = entry(submission(1), submission(2, flags=REDRIVE | 1), submission(3, flags=3))

    assert redriven([Move(WHERE, EntryId(7, 1), batch.id, [batch])]) == {
        Place(WHERE, batch.id, 1): UUID(bytes=minted(2))
    }


def test_books_add_up() -> None:
    books = [Books(5, 1, 0, 2), Books(7, 0, 3, 0)]

    assert Books.added(books) == Books(12, 1, 3, 2)
    assert Books.added(books).total == sum(its.total for its in books) == 18
    assert Books.added([]) == Books()


def test_a_move_knows_when_its_first_event_was_received() -> None:
    early, late = NOW_MS - 3 * DAY_MS, NOW_MS
    first = entry(submission(0, at_ms=late), submission(1, at_ms=early), seq=2)
    second = entry(submission(2, at_ms=late), seq=3)

    assert Move(WHERE, EntryId(7, 1), EntryId(7, 3), [first, second]).oldest_ms == early
    assert Move(WHERE, EntryId(7, 2), EntryId(7, 3), [second]).oldest_ms == late
    assert Move(WHERE, EntryId(7, 2), EntryId(7, 3), []).oldest_ms is None

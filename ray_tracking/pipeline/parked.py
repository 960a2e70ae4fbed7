"""
When a parked entry may be written: when each campaign in it has budget left for its events.

What the other lanes bring was admitted within the budget already, and is charged as of the
time when it came in; what is parked gets what they leave. So it waits until the other lanes
of its partition were read up to when it was parked. A campaign's backlog is written oldest
first. Within a stream an entry that has to wait holds up those behind it, also of other
campaigns: they share a partition, and wait for some windows longer than they had to.

The budget is known to one writer. Its successor begins with an empty book, so a restart may
let one window's worth more through.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterator
from math import inf

from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.append import Header
from ray_tracking.pipeline.flush import Where
from ray_tracking.pipeline.rate import RatePolicy, Sliding, slot_ms_of
from ray_tracking.pipeline.route import received_ms, received_span_ms

_OTHERS = (LANES.index(Lane.HIGH), LANES.index(Lane.NORMAL))


class Budget:
    """
    What each campaign may still have written in its window.

    Args:
        policy: The limits, those of admission.
    """

    def __init__(self, policy: RatePolicy) -> None:
        self._policy = policy
        # In order of use: an idle campaign is the same as none, and is forgotten.
        self._spent: OrderedDict[str, Sliding] = OrderedDict()
        #: Up to when, by ``appended_ms``, each stream of the other lanes is known.
        self._known_to_ms: dict[Where, float] = {}

    def __len__(self) -> int:
        return len(self._spent)

    def change(self, policy: RatePolicy) -> None:
        """Go by other limits from now on; what was spent stays spent."""
        self._policy = policy

    def knows(self, where: Where, until_ms: float | None) -> None:
        """
        A stream of another lane was read up to a time.

        Args:
            where: Which.
            until_ms: Up to when; None where nobody knows when it can be read on, and what
                is parked is not to wait for it.
        """
        self._known_to_ms[where] = inf if until_ms is None else until_ms

    def spend(self, where: Where, header: Header, *, now_ms: int) -> None:
        """An entry of another lane was read: its events are about to be rows."""
        self.knows(where, header.appended_ms)
        horizon_ms = now_ms - self._policy.window_ms
        if not header.count or header.appended_ms <= horizon_ms:
            return  # no events, or all were received before the window
        for key, at_ms, count in self._charges(header):
            if at_ms > horizon_ms:
                self._of(key).add(min(at_ms, now_ms), count)
        self._forget(now_ms)

    def take(self, where: Where, header: Header, *, now_ms: int) -> bool:
        """
        May the events of a parked entry be written? With a yes they are charged.

        An entry that has more of a campaign than a whole window allows may go when that
        window is empty.
        """
        partition, _ = where
        known_to_ms = min(self._known_to_ms.get((partition, lane), -inf) for lane in _OTHERS)
        if known_to_ms < header.appended_ms:
            return False
        counts = Counter(array("H", header.key_index))
        wanted = [(header.keys[key], count) for key, count in counts.items()]
        for key, count in wanted:
            spent = self._of(key)
            spent.expire(now_ms)
            if spent.total and spent.total + count > self._policy.of(key)[0]:
                return False
        for key, count in wanted:
            self._of(key).add(now_ms, count)
        return True

    def _charges(self, header: Header) -> Iterator[tuple[str, int, int]]:
        """Campaign, time and number of its events; one line of a campaign for each slot."""
        ids, keys, key_index = header.event_ids, header.keys, array("H", header.key_index)
        slot_ms = slot_ms_of(self._policy.window_ms)
        first_ms, last_ms = received_span_ms(ids)
        if first_ms // slot_ms == last_ms // slot_ms:
            for key, count in Counter(key_index).items():
                yield keys[key], last_ms, count
            return
        times = [received_ms(ids[at : at + 6]) for at in range(0, len(ids), 16)]
        for (key, at_ms), count in Counter(zip(key_index, times, strict=True)).items():
            yield keys[key], at_ms, count

    def _of(self, key: str) -> Sliding:
        spent = self._spent.get(key)
        if spent is None:
            spent = self._spent[key] = Sliding(self._policy.window_ms)
        else:
            if spent.window_ms != self._policy.window_ms:
                spent = self._spent[key] = spent.over(self._policy.window_ms)
            self._spent.move_to_end(key)
        return spent

    def _forget(self, now_ms: int) -> None:
        while self._spent:
            key, spent = next(iter(self._spent.items()))
            spent.expire(now_ms)
            if spent.total:
                return
            del self._spent[key]

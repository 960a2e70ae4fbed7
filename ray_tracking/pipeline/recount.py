"""Are the figures what the rows say? A recount against what is counted, figure by figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from pydantic.alias_generators import to_camel

from ray_tracking.events import BounceType
from ray_tracking.pipeline.figures import iso_time

FIRST, LAST = "first_event_at", "last_event_at"


class Figure(NamedTuple):
    """
    One figure, as it is shown and as the rows say.

    Its name is that of the API, as in ``/campaigns/{id}/stats``; where it is about a bucket, a link
    or a group, that follows. A time is as the API shows it, and None where there is none.
    """

    name: str
    rollup: int | str | None
    recount: int | str | None

    @property
    def is_total(self) -> bool:
        """Whether it is about the whole campaign, not a bucket, a link or a group of it."""
        return " " not in self.name


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one recount."""

    campaign_id: str
    figures: list[Figure]

    @property
    def differences(self) -> list[Figure]:
        """Those that are not what they should be."""
        return [figure for figure in self.figures if figure.rollup != figure.recount]

    def answer(self) -> dict[str, Any]:
        """As the API shows it: the totals, and of everything else what differs."""
        wrong = self.differences
        return {
            "campaignId": self.campaign_id,
            "equal": not wrong,
            "compared": len(self.figures),
            "differences": len(wrong),
            "figures": [
                {"figure": figure.name, "rollup": figure.rollup, "recount": figure.recount}
                for figure in self.figures
                if figure.is_total or figure.rollup != figure.recount
            ],
        }


def check(campaign_id: str, rollup: Mapping[str, int], recount: Mapping[str, int]) -> Check:
    """
    Both sides, figure by figure; one that is missing is zero.

    Args:
        campaign_id: Whose.
        rollup: As it is shown, by names in snake_case. Times are in microseconds since 1970.
        recount: As the rows say, in the same way.
    """
    names = sorted(rollup.keys() | recount.keys(), key=lambda name: (" " in name, name))
    return Check(
        campaign_id, [_figure(name, rollup.get(name), recount.get(name)) for name in names]
    )


def _figure(name: str, rollup: int | None, recount: int | None) -> Figure:
    if name in (FIRST, LAST):
        return Figure(_api_name(name), _time(rollup), _time(recount))
    return Figure(_api_name(name), rollup or 0, recount or 0)


def _api_name(name: str) -> str:
    kind, space, of = name.partition(" ")
    if name in get_args(BounceType):
        return f"bounces.{name}"
    return to_camel(kind) + space + of


def _time(micros: int | None) -> str | None:
    return None if micros is None else iso_time(micros)


def together(counted: Mapping[str, int], sealed: Mapping[str, int]) -> dict[str, int]:
    """
    What was counted from rows and what is sealed, as one.

    Args:
        counted: From rows; its unique figures know the sealed leads already.
        sealed: Of days whose rows are dropped.
    """
    whole = dict(counted)
    for name, number in sealed.items():
        if name == FIRST:
            whole[name] = min(whole.get(name, number), number)
        elif name == LAST:
            whole[name] = max(whole.get(name, number), number)
        elif not name.startswith("unique"):
            whole[name] = whole.get(name, 0) + number
    return whole

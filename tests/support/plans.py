"""A plan carried out without waiting for anybody."""

from __future__ import annotations

from typing import TypeVar

from ray_tracking.api.attempts import Failed, Patience, Pause, Plan, Reply, Request

T = TypeVar("T")


class Run:
    """
    A plan carried out with a clock that only pauses move.

    Args:
        answers: What comes back, one after the other; the last one again and again.
        draws: What is drawn each time.
    """

    def __init__(self, *answers: Reply | Failed, draws: float = 0.5, takes_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.pauses: list[float] = []
        self.asked: list[Request] = []
        self._answers = list(answers)
        self._draws = draws
        self._takes_s = takes_s

    def patience(self, retry_for_s: float = 10.0) -> Patience:
        return Patience(retry_for_s, lambda: self.now_s, lambda: self._draws)

    def of(self, plan: Plan[T]) -> T:
        said: Reply | Failed | None = None
        while True:
            try:
                step = plan.send(said)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Pause):
                self.pauses.append(step.seconds)
                self.now_s += step.seconds
                said = None
            else:
                self.asked.append(step)
                self.now_s += self._takes_s
                said = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

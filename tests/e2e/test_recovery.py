"""``ray-tracking run`` comes back by itself from the loss of Ray, and still ends when asked."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.sending import (
    assert_clear_answers,
    assert_each_is_one_row,
    sending_through_errors,
)
from tests.e2e.service import STOP_WITHIN_S, Service, alive, eventually, tracebacks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

#: As long as a cold start and the pause before it: 12 s on an idle machine.
BACK_WITHIN_S = 90.0
AGAIN = "starting everything again"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all losses: it has to come back from one after the other."""
    made = Service(tmp_path_factory.mktemp("kept"))
    made.start()
    try:
        yield made
    finally:
        made.kill_everything()


def ray_driver(service: Service) -> psutil.Process:
    """The child of the keeper that has Ray below it."""
    (found,) = [
        process
        for process in psutil.Process(service.process.pid).children()
        if process.cmdline() == psutil.Process(service.process.pid).cmdline()
    ]
    return found


def victims(service: Service, what: str) -> list[psutil.Process]:
    driver = ray_driver(service)
    if what == "driver":
        return [driver]
    all_of_ray = driver.children(recursive=True)
    if what == "all":
        return [driver, *all_of_ray]
    return [process for process in all_of_ray if process.name() == what]


def kill(processes: list[psutil.Process]) -> None:
    assert processes
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def times_lost(service: Service) -> int:
    return service.output.read_text().count(AGAIN)


@pytest.mark.parametrize("what", ["raylet", "gcs_server", "driver", "all"])
def test_the_whole_comes_back_by_itself(kept: Service, what: str) -> None:
    """What was acknowledged before is one row each, as is what is acknowledged afterwards."""
    lost_before = times_lost(kept)
    with sending_through_errors(kept, f"lost-{what}") as sender:
        killed = victims(kept, what)
        kill(killed)
        eventually(lambda: not any(alive(process) for process in killed), 5, "they are dead")
        eventually(lambda: times_lost(kept) > lost_before, 10, "the loss is noticed")
        count = len(sender.acknowledged)
        eventually(lambda: len(sender.acknowledged) > count + 20, BACK_WITHIN_S, "it is back")
    assert_clear_answers(sender)
    assert_each_is_one_row(kept, sender)
    assert times_lost(kept) == lost_before + 1


def test_a_stop_while_it_comes_back_ends_everything(kept: Service) -> None:
    """Whoever has asked for the end does not wait for a start first."""
    lost_before = times_lost(kept)
    before = kept.processes()
    kill(victims(kept, "raylet"))
    eventually(lambda: times_lost(kept) > lost_before, 10, "the loss is noticed")

    assert kept.stop() == 0, kept.output.read_text()[-3000:]

    eventually(lambda: not any(alive(process) for process in before), STOP_WITHIN_S, "all ended")
    assert kept.processes() == []
    assert tracebacks(kept) == []

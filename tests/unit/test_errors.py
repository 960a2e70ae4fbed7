"""Errors travel between processes, and carry what the HTTP layer needs."""

from __future__ import annotations

import pickle
import re

import pytest

# For their errors, which are found as subclasses.
from ray_tracking import errors
from ray_tracking.errors import InvalidEvent, RequestError, TrackingError, Unavailable
from ray_tracking.stores.failures import Failure, StoreRefused


def family(parent: type[TrackingError]) -> list[type[TrackingError]]:
    """A class of errors and all below it."""
    return [parent, *[below for child in parent.__subclasses__() for below in family(child)]]


ALL = sorted(family(TrackingError), key=lambda error: (error.__module__, error.__name__))
every_error = pytest.mark.parametrize("error_class", ALL, ids=lambda error: error.__name__)


def example(error_class: type[TrackingError]) -> TrackingError:
    if issubclass(error_class, InvalidEvent):
        return error_class([("linkUrl", "is required"), ("timestamp", "is not ISO 8601")])
    if issubclass(error_class, StoreRefused):
        return error_class(Failure.DATA, "22P02", "invalid input syntax")
    return error_class("what happened")


@every_error
def test_an_error_comes_through_pickle_with_all_its_fields(
    error_class: type[TrackingError],
) -> None:
    """Ray pickles what an actor raises; an error that cannot be unpickled hides itself."""
    error = example(error_class)
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is error_class
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
    assert (copy.code, copy.status) == (error.code, error.status)


@every_error
def test_a_code_is_a_label_of_a_metric(error_class: type[TrackingError]) -> None:
    assert re.fullmatch("[a-z_]{3,40}", error_class.code)
    assert 400 <= error_class.status < 600


@every_error
def test_the_status_says_whose_turn_it_is(error_class: type[TrackingError]) -> None:
    """4xx: the sender mends it. 503: the sender comes again. 500: nobody outside can help."""
    if issubclass(error_class, RequestError):
        assert 400 <= error_class.status < 500
    elif issubclass(error_class, Unavailable):
        assert error_class.status == 503
    else:
        assert error_class.status == 500


def test_no_two_errors_have_one_code() -> None:
    codes = [error_class.code for error_class in ALL]

    assert len(set(codes)) == len(codes)


def test_an_invalid_event_reads_as_a_sentence() -> None:
    error = example(InvalidEvent)

    assert str(error) == "linkUrl: is required; timestamp: is not ISO 8601"


def test_the_module_lists_the_errors_that_it_has() -> None:
    listed = re.findall(r"\* (\w+)", errors.__doc__ or "")

    assert sorted(listed) == sorted(
        error_class.__name__ for error_class in ALL if error_class.__module__ == errors.__name__
    )

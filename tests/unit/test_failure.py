"""What an error that keeps the server from starting means for its command."""

from __future__ import annotations

import pytest

from pagi_trio.errors import AppLoadError, BindError, ConfigError, LifespanFailedError, PagiError, WorkerError
from pagi_trio.failure import Failure, explain


@pytest.mark.parametrize("kind", [ConfigError, BindError])
def test_a_wrong_setting_or_address_is_wrong_usage(kind: type[PagiError]) -> None:
    assert explain(kind("cannot listen on a:1: address in use\n")) == Failure(
        "cannot listen on a:1: address in use", "", 2
    )


@pytest.mark.parametrize("kind", [LifespanFailedError, WorkerError])
def test_what_keeps_the_application_from_serving_is_the_applications(kind: type[PagiError]) -> None:
    assert explain(kind("worker 1 was not ready within 60 s")) == Failure("worker 1 was not ready within 60 s", "", 3)


def test_an_application_that_is_not_there_has_no_traceback() -> None:
    assert explain(AppLoadError("app:x: there is no 'x'")) == Failure("app:x: there is no 'x'", "", 3)


def test_an_application_that_raises_when_imported_shows_where() -> None:
    def load() -> None:
        try:
            raise KeyError("db")
        except KeyError as error:
            raise AppLoadError("app: KeyError: 'db'") from error

    with pytest.raises(AppLoadError) as caught:
        load()
    failure = explain(caught.value)
    assert (failure.line, failure.code) == ("app: KeyError: 'db'", 3)
    assert failure.details.startswith("Traceback (most recent call last):\n")
    assert 'raise KeyError("db")' in failure.details
    # Where the server stood is of no interest.
    assert failure.details.endswith("KeyError: 'db'\n")
    assert "AppLoadError" not in failure.details


def test_of_a_refusal_of_many_lines_the_last_one_is_the_reason() -> None:
    text = "the application failed to start: Traceback (most recent call last):\n  somewhere\nKeyError: 'db'\n"
    assert explain(LifespanFailedError(text)) == Failure(
        "the application failed to start: KeyError: 'db'", text.strip(), 3
    )

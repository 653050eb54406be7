"""What an application sends wrongly in its lifespan: the send says what is wrong, and its next answer still counts.

Source: the ASGI lifespan message format 2.0.
"""

from __future__ import annotations

import logging

import pytest

from pagi_trio.errors import AppProtocolError, LifespanFailedError
from pagi_trio.urlmap import URLMap
from tests.integration.embedded import serving

from .misuse import body, start
from .strict_client import FINE, connected

pytestmark = pytest.mark.trio

NO_EVENTS = {
    "None": (None, "must be a dict with a 'type', not NoneType"),
    "a list": ([], "must be a dict with a 'type', not list"),
    "a str": ("lifespan.startup.complete", "must be a dict with a 'type', not str"),
    "empty": ({}, "needs a 'type' that is a str"),
    "without type": ({"message": "x"}, "needs a 'type' that is a str"),
    "type None": ({"type": None}, "None is no answer"),
    "type list": ({"type": ["lifespan.startup.complete"]}, ("no answer", "not list")),
    "misspelt": ({"type": "lifespan.startup.completed"}, "'lifespan.startup.completed' is no answer"),
    "of a request": ({"type": "http.response.start", "status": 200}, "'http.response.start' is no answer"),
    "received": ({"type": "lifespan.startup"}, "'lifespan.startup' is no answer"),
}

PHASES = ("startup", "shutdown")


class Careless:
    """An application that sends something wrong in one phase, catches what it is told, and answers rightly then."""

    def __init__(self, phase, event):
        self._wrong = {phase: event}
        self.errors = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await send(start())
            await send(body(b"fine"))
            return
        for phase in PHASES:
            assert await receive() == {"type": f"lifespan.{phase}"}
            if phase in self._wrong:
                try:
                    await send(self._wrong[phase])
                except AppProtocolError as error:
                    self.errors.append(str(error))
            await send({"type": f"lifespan.{phase}.complete"})


def mounted(app):
    return URLMap({"/": app})


@pytest.mark.parametrize("wrap", [lambda app: app, mounted], ids=["alone", "in a URLMap"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("event", "words"), NO_EVENTS.values(), ids=NO_EVENTS)
async def test_a_wrong_answer_is_told_and_the_right_one_still_counts(caplog, event, words, phase, wrap):
    app = Careless(phase, event)
    async with serving(wrap(app), lifespan="on") as server, connected(server) as client:
        assert (await client.request(FINE)).body == b"fine"
    (error,) = app.errors
    assert any(part in error for part in ([words] if isinstance(words, str) else words))
    for failed in PHASES:
        assert server.metrics.value("pagi_server_lifespan_failures_total", phase=failed) == 0


@pytest.mark.parametrize(("event", "words"), NO_EVENTS.values(), ids=NO_EVENTS)
async def test_an_error_let_out_is_named_in_the_reason_for_which_there_is_no_start(event, words):
    async def app(scope, receive, send):
        await receive()
        await send(event)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(app, lifespan="on"):
            raise AssertionError("it started")
    (error,) = caught.value.exceptions
    assert isinstance(error, LifespanFailedError)
    assert "AppProtocolError: " in str(error)
    assert any(part in str(error) for part in ([words] if isinstance(words, str) else words))


async def test_an_error_let_out_is_said_where_the_app_is_served_without_lifespan(caplog):
    caplog.set_level(logging.INFO, "pagi_trio")

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.completed"})
        await send(start())
        await send(body(b"fine"))

    async with serving(app) as server, connected(server) as client:
        assert (await client.request(FINE)).body == b"fine"
    assert "served without (AppProtocolError: 'lifespan.startup.completed' is no answer here" in caplog.text


@pytest.mark.parametrize("message", [5, None, ["a"], b"a"])
@pytest.mark.parametrize("wrap", [lambda app: app, mounted], ids=["alone", "in a URLMap"])
async def test_a_refusal_whose_message_is_no_str_is_a_refusal(message, wrap):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": message})

    with pytest.raises(BaseExceptionGroup) as caught:
        async with serving(wrap(app)):
            raise AssertionError("it started")
    (error,) = caught.value.exceptions
    assert str(error) == f"the application failed to start: {message}"

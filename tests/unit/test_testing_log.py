"""The log of one server among several, beside whatever else listens to the logger."""

from __future__ import annotations

import contextvars
import logging

import pytest
import trio
import trio.testing

from pagi_trio.testing.log import ServerLog

pytestmark = pytest.mark.trio

logger = logging.getLogger("pagi_trio")


@pytest.fixture
def others():
    """What a handler of somebody else's sees of the logger; levels are put back at the end."""
    seen = []

    class Others(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    handler = Others()
    root = logging.getLogger()
    levels = root.level, logger.level
    root.addHandler(handler)
    yield seen
    root.removeHandler(handler)
    root.setLevel(levels[0])
    logger.setLevel(levels[1])
    logger.disabled = False


def say_everything():
    for level in ("debug", "info", "warning"):
        getattr(logger, level)("a %s", level)


async def say(*words):
    for one in words:
        logger.info(one)
        await trio.lowlevel.checkpoint()


async def test_it_has_info_and_up_though_logging_is_not_configured(others):
    with ServerLog() as log, log.owned():
        say_everything()
    assert log.lines == ["INFO a info", "WARNING a warning"]
    assert log.text == "INFO a info\nWARNING a warning"
    assert [record.levelname for record in log.records] == ["INFO", "WARNING"]
    assert "a warn" in log
    assert "a debug" not in log


@pytest.mark.parametrize(
    ("root", "own", "seen"),
    [
        (logging.WARNING, logging.NOTSET, ["a warning"]),
        (logging.INFO, logging.NOTSET, ["a info", "a warning"]),
        (logging.DEBUG, logging.NOTSET, ["a debug", "a info", "a warning"]),
        (logging.DEBUG, logging.ERROR, []),
        (logging.ERROR, logging.DEBUG, ["a debug", "a info", "a warning"]),
    ],
)
async def test_handlers_see_what_they_would_without_it(others, root, own, seen):
    logging.getLogger().setLevel(root)
    logger.setLevel(own)
    say_everything()
    assert others == seen
    with ServerLog() as log, log.owned():
        say_everything()
    assert others == seen * 2
    say_everything()
    assert others == seen * 3
    assert logger.level == own
    # What the user has asked for beyond it is in the log, too.
    assert len(log.lines) == (3 if "a debug" in seen else 2)


async def test_levels_that_are_set_meanwhile_hold(others):
    with ServerLog() as log, log.owned():
        logging.getLogger().setLevel(logging.INFO)
        logger.info("for all")
        logger.setLevel(logging.ERROR)
        logger.warning("for nobody")
    assert others == ["for all"]
    assert logger.level == logging.ERROR


@pytest.mark.parametrize("name", [None, "pagi_trio"])
@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
async def test_caplog_gets_what_it_asks_for(caplog, others, name, level):
    with ServerLog() as log, log.owned():
        say_everything()
        with caplog.at_level(level, logger=name):
            say_everything()
        say_everything()
    wanted = ["a info", "a warning"] if level == logging.INFO else ["a debug", "a info", "a warning"]
    assert caplog.messages == ["a warning", *wanted, "a warning"]
    assert logger.level == logging.NOTSET


async def test_a_level_that_was_found_meanwhile_and_is_put_back_later_does_no_harm(others):
    with ServerLog():
        found = logger.level
    logger.setLevel(found)
    say_everything()
    with ServerLog() as log, log.owned():
        say_everything()
    say_everything()
    assert others == ["a warning"] * 3
    assert logger.level == logging.NOTSET


async def test_each_server_has_its_own(nursery):
    with ServerLog() as one, ServerLog() as two:
        with one.owned():
            nursery.start_soon(say, "one", "of one")
        with two.owned():
            nursery.start_soon(say, "two", "of two")
        logger.warning("of the test")
        await one.wait_for("of one")
        await two.wait_for("of two")
    assert (one.lines, two.lines) == (["INFO one", "INFO of one"], ["INFO two", "INFO of two"])


async def test_those_who_end_first_need_not_have_begun_last(others):
    with ServerLog() as one:
        two = ServerLog()
        two.__enter__()
    with two.owned():
        logger.info("still recorded")
    with one.owned():
        logger.info("no longer recorded")
    assert logger.level != logging.NOTSET
    two.__exit__(None, None, None)
    assert logger.level == logging.NOTSET
    assert (one.lines, two.lines) == ([], ["INFO still recorded"])


async def test_the_tasks_and_threads_of_a_server_log_where_it_does(nursery):
    async def server():
        async with trio.open_nursery() as own:
            own.start_soon(say, "of a task")
            await trio.to_thread.run_sync(logger.info, "of a thread")

    with ServerLog() as log:
        with log.owned():
            nursery.start_soon(server)
        await log.wait_for("of a task")
        await log.wait_for("of a thread")


async def test_it_is_kept_when_it_has_ended():
    with ServerLog() as log, log.owned():
        logger.warning("before")
        context = contextvars.copy_context()
    context.run(logger.warning, "after")
    assert log.lines == ["WARNING before"]
    assert "before" in log


async def test_a_thread_that_its_run_has_left_behind_may_log():
    async def make():
        return ServerLog()

    with await trio.to_thread.run_sync(trio.run, make) as log, log.owned():
        logger.warning("late")
    assert log.lines == ["WARNING late"]


async def test_it_has_tracebacks():
    with ServerLog() as log, log.owned():
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logger.exception("it failed")
    assert log.lines == ["ERROR it failed"]
    assert "ZeroDivisionError: division by zero" in log
    assert log.text.startswith("ERROR it failed\nTraceback (most recent call last):\n")


async def test_waiting_for_words_that_are_there_is_a_checkpoint_and_takes_no_time(autojump_clock):
    with ServerLog() as log, log.owned():
        logger.info("some words")
        logger.info("other words")
        with trio.testing.assert_checkpoints():
            record = await log.wait_for("words")
    assert record.getMessage() == "some words"
    assert trio.current_time() == 0


async def test_waiting_ends_in_the_moment_that_they_are_logged(nursery, autojump_clock):
    async def server():
        await trio.sleep(3)
        await say("these words")

    nursery.start_soon(trio.sleep, 4)
    with ServerLog() as log:
        with log.owned():
            nursery.start_soon(server)
        await log.wait_for("these words")
        assert trio.current_time() == 3


async def test_words_of_a_thread_end_the_wait_while_it_works_on(nursery):
    async def server():
        await trio.to_thread.run_sync(work)

    def work():
        logger.info("begun")
        trio.from_thread.run(go_on.wait)

    go_on = trio.Event()
    with ServerLog() as log:
        with log.owned():
            nursery.start_soon(server)
        await log.wait_for("begun")
        go_on.set()


async def test_words_that_are_not_logged_in_time_are_named_with_what_was(autojump_clock):
    with ServerLog() as log, log.owned():
        with pytest.raises(AssertionError, match=r"not logged within 0\.5 s: 'words'; nothing was"):
            await log.wait_for("words", within_s=0.5)
        logger.info("something")
        logger.info("else")
        with pytest.raises(AssertionError) as caught:
            await log.wait_for("words")
    assert str(caught.value) == "not logged within 5 s: 'words'; this was:\nINFO something\nINFO else"
    assert trio.current_time() == 5.5


async def test_a_disabled_logger_is_named(others, autojump_clock):
    with ServerLog() as log, log.owned():
        logger.disabled = True
        logger.info("words")
        with pytest.raises(AssertionError, match="the logger pagi_trio is disabled: give "):
            await log.wait_for("words")

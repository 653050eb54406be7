"""The tests of the chat: `pagi-trio[pytest]` brings their fixtures, and there is no conftest.py."""

import httpx
import pytest
import trio
from chat import app


async def test_a_request_in_memory(pagi_client):
    client = await pagi_client(app)
    response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_the_state_that_the_lifespan_has_made(pagi_client):
    client = await pagi_client(app)
    client.state["rooms"]["tea"].members = ["ann", "bob"]
    assert (await client.get("/")).text == "tea: ann, bob\n"


async def test_two_who_talk(pagi_client):
    client = await pagi_client(app)
    async with client.websocket("/tea?name=ann") as ann, client.websocket("/tea?name=bob") as bob:
        assert await ann.get_message() == "ann is here"
        assert await ann.get_message() == "bob is here"
        assert await bob.get_message() == "bob is here"
        await ann.send_message("hello")
        assert await bob.get_message() == "ann: hello"
        assert (await client.get("/")).text == "tea: ann, bob\n"


async def test_what_the_server_counts_is_exact(pagi_client):
    client = await pagi_client(app)
    async with client.websocket("/tea?name=ann") as ann:
        assert await ann.get_message() == "ann is here"
        with client.metrics.delta() as delta:
            for text in ("one", "two", "three"):
                await ann.send_message(text)
                assert await ann.get_message() == f"ann: {text}"
    assert delta.value("pagi_websocket_messages_received_total") == 3
    assert delta.value("pagi_websocket_messages_sent_total") == 3


async def test_history_goes_on_where_it_was_lost(pagi_client):
    client = await pagi_client(app)
    room = client.state["rooms"]["tea"]
    room.say("one")
    room.say("two")
    async with client.sse("/tea/history", reconnect=True) as events:
        assert (await anext(events)).json() == "one"
        assert (await anext(events)).json() == "two"
        client.network.cut()
        room.say("three")
        # It comes back by itself, with Last-Event-ID: 2.
        event = await anext(events)
    assert event.json() == "three"
    assert event.id == "3"
    assert client.metrics.value("pagi_sse_connections_total") == 2


async def test_half_a_minute_in_a_millisecond(pagi_client, autojump_clock):
    client = await pagi_client(app)
    async with client.websocket("/tea?name=ann") as ann:
        assert await ann.get_message() == "ann is here"
        # Nothing else happens meanwhile, so the clock jumps.
        assert await ann.get_message() == "in this room: ann"
    assert trio.current_time() >= 30


async def test_an_error_of_the_application_is_raised_in_the_test(pagi_client):
    client = await pagi_client(app)
    with pytest.raises(ValueError, match="empty range"):
        async with client.websocket("/tea?name=ann") as ann:
            assert await ann.get_message() == "ann is here"
            # A fault of the chat: no die has no sides.
            await ann.send_message("/roll 0")
            await ann.get_message()


async def test_the_others_see_that_somebody_is_cut_off(pagi_client):
    client = await pagi_client(app)
    async with client.websocket("/tea?name=ann") as ann:
        assert await ann.get_message() == "ann is here"
        async with client.websocket("/tea?name=bob") as bob:
            assert await ann.get_message() == "bob is here"
            client.network.wire_of(bob).cut()
            assert await ann.get_message() == "bob has left"
    assert client.metrics.value("pagi_websocket_closes_total", code=1006, side="none") == 1


async def test_somebody_who_does_not_read_holds_up_nobody(pagi_client):
    client = await pagi_client(app)
    async with client.websocket("/tea?name=ann") as ann, client.websocket("/tea?name=bob") as bob:
        assert await ann.get_message() == "ann is here"
        assert await ann.get_message() == "bob is here"
        bobs = client.network.wire_of(bob)
        bobs.stop_reading()
        with client.metrics.delta() as delta:
            for number in range(100):
                await ann.send_message(f"{number:10000}")
                assert await ann.get_message() == f"ann: {number:10000}"
        # Ann has had a megabyte, and Bob what fits into a pipe.
        assert 100 <= delta.value("pagi_websocket_messages_sent_total") < 120
        bobs.go_on_reading()
        assert await bob.get_message() == "bob is here"
        for number in range(100):
            assert await bob.get_message() == f"ann: {number:10000}"


async def test_a_real_server_for_any_client(pagi_serve):
    server = await pagi_serve(app)
    async with httpx.AsyncClient() as http:
        response = await http.get(server.url)
    assert response.status_code == 200
    assert f"serving on {server.url}" in server.log

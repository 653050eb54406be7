"""What a test says of a request, as it is sent."""

from __future__ import annotations

import pytest

from pagi_trio.testing.request_parts import encode_target


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/", "/"),
        ("", "/"),
        ("chat", "/chat"),
        ("/chat?name=ann", "/chat?name=ann"),
        ("/tea%20room/café", "/tea%20room/caf%C3%A9"),
        ("http://127.0.0.1:8000/chat?name=ann", "/chat?name=ann"),
        ("ws://testserver/chat", "/chat"),
        ("WSS://testserver", "/"),
        ("ws://testserver?name=ann", "/?name=ann"),
        ("/go?to=http://there/", "/go?to=http://there/"),
        ("//twice", "//twice"),
        ("/chat?name=ann#top", "/chat?name=ann"),
        ("http://testserver#top", "/"),
    ],
)
def test_a_path_or_url_is_the_target_that_the_one_server_is_asked_for(path, target):
    assert encode_target(path) == target

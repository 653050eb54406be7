"""What is remembered of lines that clients choose takes memory within a bound."""

from __future__ import annotations

import tracemalloc

from pagi_trio.wire import head, response
from pagi_trio.wire.head import parse_head
from pagi_trio.wire.response import ResponseFields

MEBIBYTE = 2**20


def test_all_that_is_remembered_together_takes_less_than_5_mib(monkeypatch):
    memos = {}
    for module, name in ((head, "_request_lines"), (head, "_field_lines"), (response, "_fields")):
        memos[name] = {}
        monkeypatch.setattr(module, name, memos[name])
    most = dict.fromkeys(memos, 0)
    tracemalloc.start()
    try:
        for number in range(5000):
            # Four bytes for each character of the path, since the last of them needs as many.
            request_line = b"GET /%d%b%%F0%%9F%%98%%80 HTTP/1.1" % (number, b"a" * (256 - 26 - len(str(number))))
            field_line = b"x%d: " % number + b"b" * (256 - 3 - len(str(number)))
            parsed = parse_head(b"%b\r\nhost: a\r\n%b" % (request_line, field_line), 10, 1000)
            assert len(request_line) == len(field_line) == 256
            # As an application does that answers with what it was sent.
            ResponseFields([(name, value[:-2]) for name, value in parsed.headers])
            most = {name: max(most[name], len(memo)) for name, memo in memos.items()}
        taken, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert min(most.values()) >= 1000
    assert taken < peak < 5 * MEBIBYTE

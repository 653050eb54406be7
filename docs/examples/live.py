"""Everything this server counts, moving before your eyes: a chat, a clock, and the metrics of both.

Run ``pagi-trio docs/examples/live.py:app`` and open http://127.0.0.1:8000/ in a browser, better in two.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

import trio

from pagi_trio import MetricsApp, URLMap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pagi_trio.asgi import App, Receive, Scope, Send

QUEUE_MESSAGES: Final = 256
"""How far a page may fall behind the chat before it is sent away: memory is bounded, and nobody waits for it."""

MESSAGE_CHARACTERS: Final = 2000
TICK_S: Final = 1.0


class Chat:
    """A WebSocket room: what one page says, all pages hear, its own included."""

    def __init__(self) -> None:
        self._queues: set[trio.MemorySendChannel[str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await self._converse(receive, send)
        elif scope["type"] == "http":
            await respond(send, 426, b"text/plain", b"this is a WebSocket\n", [(b"upgrade", b"websocket")])

    async def _converse(self, receive: Receive, send: Send) -> None:
        """Listen to one page until it leaves, while a child task tells it what the others say."""
        with self._join() as queue:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(deliver, queue, send)
                while True:
                    message = await receive()
                    if message["type"] != "websocket.receive":
                        break
                    text = message.get("text")
                    if text:
                        self._say(text[:MESSAGE_CHARACTERS])
                nursery.cancel_scope.cancel()

    @contextmanager
    def _join(self) -> Iterator[trio.MemoryReceiveChannel[str]]:
        to_page, queue = trio.open_memory_channel[str](QUEUE_MESSAGES)
        self._queues.add(to_page)
        try:
            yield queue
        finally:
            self._queues.discard(to_page)

    def _say(self, text: str) -> None:
        """Queue a text for every page; one whose queue is full is sent away."""
        for to_page in tuple(self._queues):
            try:
                to_page.send_nowait(text)
            except trio.WouldBlock:
                self._queues.discard(to_page)
                to_page.close()


async def deliver(queue: trio.MemoryReceiveChannel[str], send: Send) -> None:
    """Send one page what comes for it; a queue that has been closed has overflowed."""
    async for text in queue:
        await send({"type": "websocket.send", "text": text})
    await send({"type": "websocket.close", "code": 1013, "reason": "too slow for this chat"})


async def clock(scope: Scope, _receive: Receive, send: Send) -> None:
    """Tell the time as server-sent events, for ever.

    It need not watch for the client to leave: the server notices within a second, and cancels this.
    """
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        event = f"data: {datetime.now().astimezone():%H:%M:%S}\n\n"
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await trio.sleep(TICK_S)


async def page(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with the page below."""
    if scope["type"] == "http":
        if scope["path"] == "/":
            await respond(send, 200, b"text/html; charset=utf-8", PAGE.encode())
        else:
            await respond(send, 404, b"text/plain", b"not found\n")
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close"})


async def respond(
    send: Send, status: int, media_type: bytes, body: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *(more or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pagi-trio, live</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #f3f5f8; --card: #fff; --line: #d9dfe7;
  --accent: #0b6e5f; --on-accent: #fff; --glow: #b9efe2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ecf2; --soft: #9aa7b6; --paper: #12171e; --card: #1b222c;
  --line: #323c49; --accent: #4fd1b5; --on-accent: #06241e; --glow: #1d5a4d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
header, main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1.25rem 0; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.02em; }
h2 { margin: 0; font-size: 1.1rem; }
p { margin: .25rem 0 0; color: var(--soft); }
main { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  padding-bottom: 2rem; align-items: start; }
.column { display: grid; gap: 1.25rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1.1rem 1.25rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .9rem; }
.state { float: right; font-size: .85rem; color: var(--soft); }
button, input { font: inherit; border-radius: .5rem; padding: .45rem .8rem; border: 1px solid var(--line); }
button { background: transparent; color: var(--ink); cursor: pointer; }
button:hover { border-color: var(--accent); }
button[type=submit] { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
input { flex: 1; min-width: 8rem; background: var(--paper); color: inherit; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
#log { list-style: none; margin: .9rem 0 0; padding: .6rem .8rem; height: 11rem; overflow-y: auto;
  background: var(--paper); border-radius: .5rem; overflow-wrap: anywhere; }
#time { display: block; margin-top: .5rem; font: 600 2.6rem/1.2 ui-monospace, monospace; color: var(--accent); }
table { width: 100%; margin-top: .7rem; border-collapse: collapse; font: .85rem/1.5 ui-monospace, monospace; }
th { text-align: left; font-weight: 400; padding: .3rem 0; }
td { text-align: right; font-weight: 600; padding: .3rem .5rem; border-radius: .3rem; transition: background 1s; }
tr + tr { border-top: 1px solid var(--line); }
td.moved { background: var(--glow); transition: none; }
a { color: var(--accent); }
</style>
</head>
<body>
<header>
  <h1>pagi-trio, live</h1>
  <p>Open this page twice, press the buttons, and watch the numbers that the server itself counts.</p>
</header>
<main>
  <div class="column">
    <section aria-labelledby="chat-title">
      <span class="state" id="chat-state" role="status">connecting</span>
      <h2 id="chat-title">Chat over a WebSocket</h2>
      <p>Every open page hears it.</p>
      <ul id="log" role="log" aria-label="Messages" tabindex="0"></ul>
      <form class="bar" id="form">
        <input id="text" aria-label="Message" placeholder="Say something" maxlength="500" autocomplete="off">
        <button type="submit" id="say">Send</button>
      </form>
      <div class="bar">
        <button type="button" id="hundred">Send 100</button>
        <button type="button" id="ten">Open 10 WebSockets</button>
        <button type="button" id="none">Close them</button>
      </div>
    </section>
    <section aria-labelledby="clock-title">
      <span class="state" id="clock-state" role="status">connecting</span>
      <h2 id="clock-title">Clock of server-sent events</h2>
      <p>One event a second.</p>
      <output id="time" aria-live="off">--:--:--</output>
      <div class="bar"><button type="button" id="toggle">Stop the clock</button></div>
    </section>
  </div>
  <section aria-labelledby="metrics-title">
    <span class="state" id="metrics-state" role="status"></span>
    <h2 id="metrics-title">Counted by the server</h2>
    <p>From <a href="/metrics">/metrics</a>, once a second.</p>
    <table><tbody id="metrics"></tbody></table>
  </section>
</main>
<script>
const at = id => document.getElementById(id);
const chatUrl = location.origin.replace(/^http/, "ws") + "/chat";
const name = "guest " + (100 + Math.floor(Math.random() * 900));
let chat, events, extra = [];

function write(text) {
  const log = at("log"), line = document.createElement("li");
  line.textContent = text;
  log.append(line);
  while (log.children.length > 200) log.firstChild.remove();
  log.scrollTop = log.scrollHeight;
}
function connect() {
  chat = new WebSocket(chatUrl);
  chat.onopen = () => at("chat-state").textContent = "connected as " + name;
  chat.onmessage = event => write(event.data);
  chat.onclose = () => { at("chat-state").textContent = "disconnected, trying again"; setTimeout(connect, 1000); };
}
function say(text) {
  const open = chat.readyState === WebSocket.OPEN;
  if (open) chat.send(name + ": " + text);
  return open;
}

at("form").onsubmit = event => {
  event.preventDefault();
  if (say(at("text").value.trim() || "hello")) at("text").value = "";
};
at("hundred").onclick = () => { for (let i = 1; i <= 100; i++) say("message " + i + " of 100"); };
at("ten").onclick = () => { for (let i = 0; i < 10; i++) extra.push(new WebSocket(chatUrl)); };
at("none").onclick = () => { extra.forEach(socket => socket.close()); extra = []; };

function start() {
  events = new EventSource("/clock");
  events.onopen = () => at("clock-state").textContent = "connected";
  events.onmessage = event => at("time").textContent = event.data;
  events.onerror = () => at("clock-state").textContent = "disconnected, trying again";
  at("toggle").textContent = "Stop the clock";
}
at("toggle").onclick = () => {
  if (!events) return start();
  events.close();
  events = null;
  at("clock-state").textContent = "stopped";
  at("toggle").textContent = "Start the clock";
};

const shown = /^(pagi_(?:websocket|sse|server_connections)_(?:\\w+)) (\\S+)$/gm;
function show(metric, value) {
  let cell = document.querySelector(`[data-metric="${metric}"]`);
  if (!cell) {
    const row = at("metrics").insertRow(), head = document.createElement("th");
    head.scope = "row";
    // A long name may be broken between its words only.
    head.innerHTML = metric.replaceAll("_", "_<wbr>");
    row.append(head);
    cell = row.insertCell();
    cell.dataset.metric = metric;
  }
  const text = Number(value).toLocaleString("en");
  cell.classList.toggle("moved", cell.textContent !== "" && cell.textContent !== text);
  cell.textContent = text;
}
async function refresh() {
  for (const cell of document.querySelectorAll(".moved")) cell.classList.remove("moved");
  try {
    const response = await fetch("/metrics", {headers: {accept: "text/plain"}});
    const text = await response.text();
    at("metrics-state").textContent = response.ok ? "live" : text.trim();
    for (const [, metric, value] of response.ok ? text.matchAll(shown) : []) show(metric, value);
  } catch {
    at("metrics-state").textContent = "the server does not answer";
  }
  setTimeout(refresh, 1000);
}
connect();
start();
refresh();
</script>
</body>
</html>
"""

app: App = URLMap({"/metrics": MetricsApp(), "/chat": Chat(), "/clock": clock, "/": page})

"""Reading the metrics page, and watching it: over any door, at any moment, no counter may step back."""

from __future__ import annotations

from collections import Counter

import trio

from .clients import Connection, CutError

REST_S = 0.02
"""Between two scrapes: scrapers that never rest would have a processor for themselves."""

ENDING = "orders_open"
"""The application's gauge that counts live workers alone, and so is not there while there is none."""


class Page:
    """One page, whole and consistent.

    Attributes:
        values: Each series' value, by its name and labels as they stand.
        totals: Those that may only grow, but for what each process has of its own.
    """

    def __init__(self, body):
        assert body.endswith(b"\n"), f"the page is cut: ... {body[-80:]!r}"
        self.values = {}
        self.totals = set()
        kind = ""
        for line in body.decode().splitlines():
            if line.startswith("# TYPE "):
                kind = line.rpartition(" ")[2]
            elif not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                assert series not in self.values, f"{series} is there twice"
                self.values[series] = float(value)
                if kind in ("counter", "histogram") and 'worker="' not in series and "_created" not in series:
                    self.totals.add(series)
        self._check_histograms()

    def _check_histograms(self):
        for series, value in self.values.items():
            if 'le="+Inf"' in series:
                name = series.partition("_bucket")[0]
                assert value == self.values.get(f"{name}_count", value), f"{name} is torn"

    def __getitem__(self, series):
        return self.values[series]

    @property
    def shared(self):
        """The names of all series that have no process of their own, and do not end with one."""
        own = ('worker="', "_created", ENDING)
        return {series for series in self.values if not any(part in series for part in own)}


class Watch:
    """What is known of the totals by all scrapes so far.

    Attributes:
        scrapes: How many were whole, by door.
        cut: How many ended with the worker that was answering.
        failed: What went wrong with others.
        decreases: Totals that were less than a scrape before had them.
        missing: Series that a scrape before had.
        sizes: How long each page was, bytes.
        connections: How many were opened to workers.
        unanswered: Those of them that were cut before they had an answer.
    """

    def __init__(self, server):
        self._server = server
        self._highest = {}
        self._known = set()
        self.scrapes = Counter()
        self.sizes = []
        self.cut = 0
        self.failed = []
        self.decreases = []
        self.missing = []
        self.connections = 0
        self.unanswered = 0
        self._leaving = False
        self._left = trio.Event()

    async def through_parent(self):
        """Scrape through the parent, again and again; nothing may go wrong."""
        while True:
            async with await Connection.open(self._server.page_port) as connection:
                try:
                    while True:
                        await self._scrape(connection, "parent", b"text/plain")
                except CutError as error:
                    self.failed.append(f"the parent's page: {error}")

    async def through_workers(self):
        """Scrape through whichever worker answers, which may die meanwhile, until `leave`."""
        while not self._leaving:
            answered = self.scrapes["worker"]
            try:
                async with await Connection.open(self._server.port) as connection:
                    self.connections += 1
                    while not self._leaving and self.scrapes["worker"] < answered + 5:
                        await self._scrape(connection, "worker", b"application/openmetrics-text;version=1.0.0")
            except CutError:
                self.cut += 1
                self.unanswered += self.scrapes["worker"] == answered
        self._left.set()

    async def leave(self):
        """Scrape through workers no longer, and wait until that connection is closed."""
        self._leaving = True
        await self._left.wait()

    async def _scrape(self, connection, door, accept):
        floor, known = self._highest.copy(), self._known.copy()
        await connection.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: %s\r\n\r\n" % accept)
        response = await connection.response()
        if response.status != 200:
            self.failed.append(f"{door}: status {response.status}")
            return
        self._compare(floor, known, door, response.body)
        self.scrapes[door] += 1
        self.sizes.append(len(response.body))
        if response.headers.get(b"connection") == b"close":
            raise CutError("the worker is leaving")
        await trio.sleep(REST_S)

    def _compare(self, floor, known, door, body):
        try:
            page = Page(body)
        except AssertionError as error:
            self.failed.append(f"{door}: {error}")
            return
        shared = page.shared
        self.missing += [(door, series) for series in known - shared]
        self._known |= shared
        for series, value in floor.items():
            if page.values.get(series, -1.0) < value:
                self.decreases.append((door, series, value, page.values.get(series)))
        for series in page.totals:
            if page.values[series] > self._highest.get(series, -1.0):
                self._highest[series] = page.values[series]

    def check(self):
        """Check that nothing went wrong, and that there was something to see."""
        assert self.failed == []
        assert self.decreases == []
        assert self.missing == []
        assert self.scrapes["parent"] > 0
        assert self.scrapes["worker"] > 0

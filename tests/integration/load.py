"""Clients that ask for one thing after another while something happens to the server, and take note of failures."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import closing, contextmanager

from tests.integration.command import LIMIT_S


class Load:
    """Clients of worker_app, each in a thread.

    Attributes:
        failures: What went wrong.
        versions: Of the code that has answered.
        answers: How many there were.
    """

    def __init__(self, url):
        self.failures = []
        self.versions = set()
        self.answers = 0
        self._address = url.removeprefix("http://")
        self._stopped = threading.Event()

    @contextmanager
    def running(self, *clients):
        """Run clients meanwhile."""
        threads = [threading.Thread(target=client) for client in clients]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def one_connection_each(self):
        while not self._stopped.is_set():
            with closing(self._connect()) as connection:
                self._ask(connection)

    def connect_ahead(self):
        """Open the next connection before the present one is used, as browsers do; so it is one over a slow line."""
        ahead = self._connect()
        while not self._stopped.is_set():
            with closing(ahead) as connection:
                ahead = self._connect()
                self._ask(connection)
        ahead.close()

    def keep_alive(self):
        connection, used = self._connect(), False
        while not self._stopped.is_set():
            # One that is idle may be closed at any time (RFC 9112 section 9.3.1): that is to be sent again, once.
            used = self._ask(connection, may_be_closed=used)
            if not used:
                connection.close()
                connection = self._connect()
        connection.close()

    def _connect(self):
        connection = http.client.HTTPConnection(self._address, timeout=LIMIT_S)
        try:
            connection.connect()
        except OSError as error:
            self.failures.append(error)
        return connection

    def _ask(self, connection, *, may_be_closed=False):
        """Send a request; return whether the connection takes another."""
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            self.versions.add(json.loads(response.read())["version"])
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not may_be_closed:
                self.failures.append(error)
            return False
        self.answers += 1
        return not response.will_close

"""Every scenario, by its name."""

from __future__ import annotations

from .http_attacks import HTTP_ATTACKS
from .tls_attacks import TLS_ATTACKS
from .websocket_attacks import WEBSOCKET_ATTACKS

SCENARIOS = {scenario.name: scenario for scenario in (*HTTP_ATTACKS, *WEBSOCKET_ATTACKS, *TLS_ATTACKS)}

"""Which form of the page a scraper wants, by what its request says.

Nothing here fails: a member that cannot be read is passed over, and where nothing offered is acceptable the
plain form is what everybody can read.

Source: RFC 9110 sections 12.4.2 (quality values), 12.5.1 (Accept) and 12.5.3 (Accept-Encoding).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PARAMETER: Final = re.compile(rf"({_WORD})=({_WORD}|{_QUOTED})")
# White space behind a semicolon belongs either to its parameter or, where that is empty, to what follows, and never to
# both: with two ways to read each, a field of fifty bytes that does not match would take hours.
_MEMBER: Final = re.compile(
    rf"[ \t]*({_WORD}(?:/{_WORD})?)((?:[ \t]*;(?:[ \t]*{_WORD}=(?:{_WORD}|{_QUOTED}))?)*)[ \t]*(?:,|\Z)"
)
_QUALITY: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_ESCAPE: Final = re.compile(r"\\(.)")

FIELD_LIMIT: Final = 1024
"""Characters of a field that is read at all: Prometheus 3 sends under 400, and a longer one could be made to
keep the server's only thread busy."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A form that is offered; its name in lower case."""

    name: str
    version: str

    @property
    def content_type(self) -> str:
        """The value of the Content-Type field."""
        return f"{self.name}; version={self.version}; charset=utf-8"


TEXT: Final = MediaType("text/plain", "0.0.4")
OPENMETRICS: Final = MediaType("application/openmetrics-text", "1.0.0")


def prefers_openmetrics(accept: str) -> bool:
    """Tell whether a scraper would rather have OpenMetrics than text.

    The higher quality wins; at equal quality the one that is named more exactly, or else text.

    Args:
        accept: The Accept field's value, several of them joined by commas, empty if there is none.
    """
    ranges = list(_members(accept))
    openmetrics = _preference(ranges, OPENMETRICS)
    return openmetrics[0] > 0.0 and openmetrics > _preference(ranges, TEXT)


def prefers_gzip(accept_encoding: str) -> bool:
    """Tell whether a scraper would rather have the page compressed than as it is.

    Args:
        accept_encoding: The Accept-Encoding field's value, as above.
    """
    qualities = {coding: quality for coding, _, quality in _members(accept_encoding)}
    others = qualities.get("*", 0.0)
    gzip = qualities.get("gzip", qualities.get("x-gzip", others))
    return gzip > 0.0 and gzip >= qualities.get("identity", others)


def _preference(ranges: list[tuple[str, dict[str, str], float]], offer: MediaType) -> tuple[float, int]:
    """Return the quality that the most specific range that fits gives an offer, and how specific that is."""
    kind = offer.name.partition("/")[0]
    specificities = {"*/*": 1, f"{kind}/*": 2, offer.name: 3}
    best = (0, 0.0)
    for name, parameters, quality in ranges:
        specificity = specificities.get(name, 0)
        version = parameters.get("version")
        if specificity and version in {None, offer.version}:
            best = max(best, (specificity + (version is not None), quality))
    return best[1], best[0]


def _members(field: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield each readable member of a list: its name in lower case, its parameters, its quality."""
    position = 0 if len(field) <= FIELD_LIMIT else len(field)
    while position < len(field):
        member = _MEMBER.match(field, position)
        if member is None:
            # Past the next comma, be it inside quotes: what follows is then no worse than malformed too.
            position = field.find(",", position) + 1 or len(field)
            continue
        position = member.end()
        parameters = {name.lower(): _unquote(value) for name, value in _PARAMETER.findall(member[2])}
        quality = parameters.pop("q", "1")
        if _QUALITY.fullmatch(quality):
            yield member[1].lower(), parameters, float(quality)


def _unquote(value: str) -> str:
    return _ESCAPE.sub(r"\1", value[1:-1]) if value[0] == '"' else value

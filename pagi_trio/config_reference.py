"""The reference page of the configuration, docs/reference/configuration.md, from the declarations."""

from __future__ import annotations

import sys
from inspect import cleandoc
from typing import TYPE_CHECKING, Final

from pagi_trio.cli_options import format_default
from pagi_trio.config import GROUPS, Config
from pagi_trio.settings import settings_of

if TYPE_CHECKING:
    from pagi_trio.settings import Group, Setting

_INTRODUCTION: Final = """\
# Configuration

<!-- Written by `python -m pagi_trio.config_reference`; a test holds the two together. -->

Every setting can be given as a flag of `pagi-trio`, in a TOML file named by `-c FILE`, or in Python as
`Config(...)`. A flag wins over the file, the file over the default. A key that does not exist is an error, and
so is a value that is not allowed. `pagi-trio --print-config` prints what holds, as a file that can be used again.

```toml
bind = ["0.0.0.0:8000", "unix:/run/app.sock"]

[timeouts]
graceful_s = 10
```

```python
from pagi_trio.config import Config, Timeouts

config = Config(bind=("0.0.0.0:8000",), timeouts=Timeouts(graceful_s=10))
config = config.replace(**{"timeouts.graceful_s": 10})
```

A `[hypercorn]` table in the file, or a file named by `--hypercorn-config`, holds hypercorn's settings; those that
have no effect here are named in one warning.
"""


def render() -> str:
    """Write the page."""
    return "\n".join([_INTRODUCTION, *_section("Top level", Config), *_tables()])


def _tables() -> list[str]:
    return [line for table, group in GROUPS.items() for line in _section(f"`[{table}]`", group)]


def _section(title: str, group: type[Group]) -> list[str]:
    about = cleandoc(group.__doc__ or "")
    return [
        f"## {title}",
        "",
        about,
        "",
        "| key | flag | default | allowed | meaning |",
        "| --- | --- | --- | --- | --- |",
        *(_row(one) for one in settings_of(group)),
        "",
    ]


def _row(setting: Setting) -> str:
    flags = ", ".join(f"`{flag}`" for flag in "/".join(setting.flags).split("/"))
    default = format_default(setting)
    cells = (
        f"`{setting.name}`",
        flags,
        f"`{default}`" if default else "unset",
        setting.allowed,
        setting.meaning,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write(render())

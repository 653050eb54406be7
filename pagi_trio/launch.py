"""What the command does once it knows its settings: serve by itself, or by workers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from pagi_trio.loader import load_app
from pagi_trio.nurseries.reload import require_watchfiles
from pagi_trio.process import Signals, set_up_logging
from pagi_trio.server import serve_at
from pagi_trio.supervisor import supervise

if TYPE_CHECKING:
    from pagi_trio.asgi import App
    from pagi_trio.config import Config
    from pagi_trio.recruits import Recruits
    from pagi_trio.systemd import Notifier


def serve_alone(app: str, config: Config, notifier: Notifier, *, factory: bool, unused: list[str]) -> None:
    """Import an application and serve it in this process, until a signal says otherwise.

    Args:
        app: Its path.
        config: The settings.
        notifier: Tells a service manager how it goes.
        factory: Whether to call what the path names.
        unused: Settings of hypercorn's that have no effect.
    """
    application = load_app(app, factory=factory)
    # After the import, since an application's own logging set-up disables the loggers that exist by then.
    set_up_logging(config.log_level, unused=unused)
    trio.run(_serve, application, config, notifier)


async def _serve(app: App, config: Config, notifier: Notifier) -> None:
    with Signals(config, notifier) as signals, signals.cancel_scope:
        await serve_at(config.bind, app, config, signals.wait_first, None, signals, signals.watch)


def serve_with_workers(  # noqa: PLR0913 - what the command line says, by name where it is not plain
    app: str, config: Config, notifier: Notifier, recruits: Recruits, *, factory: bool, unused: list[str]
) -> bool:
    """Have worker processes import an application and serve it.

    Args:
        app: Its path.
        config: The settings.
        notifier: Tells a service manager how it goes.
        recruits: Where the processes come from.
        factory: Whether to call what the path names.
        unused: Settings of hypercorn's that have no effect.

    Returns:
        Whether every worker ended by itself, in time.
    """
    if config.reload:
        require_watchfiles()
    set_up_logging(config.log_level, unused=unused)
    return trio.run(partial(supervise, app, config, factory=factory, notifier=notifier, recruits=recruits))

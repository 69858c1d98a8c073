"""``sagectl top``: shows the fleet live."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sage_client import Client, FleetSnapshot, SageError
from sagectl.options.connecting import ADDRESS, connecting
from sagectl.output.json_output import print_json
from sagectl.output.screen import save_svg, show, stdout_console
from sagectl.output.sentences import sentence
from sagectl.top.feed import Feed
from sagectl.top.frame import ConnectionState, frame
from sagectl.top.keyboard import Keys

DECISIONS = 64  # recent decisions to ask for; as many are shown as fit
POLL_S = 0.1  # seconds between two polls of the keyboard and the feed
REDRAW_S = 1.0  # seconds after which the screen is redrawn without a new snapshot, because ages grow
PICTURE_WIDTH, PICTURE_HEIGHT = 112, 32  # columns, lines


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.25, 60.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two snapshots.",
)
@click.option("--once", is_flag=True, help="Print one snapshot and exit; the default if stdout is not a terminal.")
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --once: also write an SVG picture to this file.",
)
@connecting
def top(client: Client, interval: float, once: bool, svg: Path | None, as_json: bool) -> None:
    """Show the fleet live: instances, queues, SLO attainment, decisions.  Press q to quit.

    With --json every snapshot is printed as one line.  If the scheduler is unreachable, top reconnects.
    """
    address = click.get_current_context().meta[ADDRESS]
    if svg is not None and not once:
        raise click.UsageError("--svg needs --once")
    if once or not (as_json or sys.stdout.isatty()):
        _show_once(client, address, svg, as_json=as_json)
        return
    with _ending_in_order(), Feed(client, interval_s=interval, decisions=DECISIONS) as feed:
        if as_json:
            _write_lines(feed)
        else:
            _live(feed, address)


def _show_once(client: Client, address: str, svg: Path | None, *, as_json: bool) -> None:
    with closing(client.watch_fleet(recent_decisions=DECISIONS)) as snapshots:
        snapshot = next(snapshots)
    if svg is not None:
        lines = frame(snapshot, ConnectionState(address=address), PICTURE_WIDTH, PICTURE_HEIGHT)
        save_svg(_shown(lines), svg, title="sagectl top", width=PICTURE_WIDTH)
    if as_json:
        print_json(snapshot, indent=None)
    else:
        console = stdout_console()
        height = console.height - 1 if console.is_terminal else None
        show(_shown(frame(snapshot, ConnectionState(address=address), console.width, height)), console)


def _write_lines(feed: Feed) -> None:
    """Print a snapshot per line on stdout, and connection errors on stderr."""
    while True:
        update = feed.take(REDRAW_S)
        if isinstance(update, FleetSnapshot):
            print_json(update, indent=None)
        elif update is not None:
            click.echo(f"reconnecting: {sentence(update)}", err=True)


def _live(feed: Feed, address: str) -> None:
    view = _View(address)
    with Keys() as keys, Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while "q" not in keys.pressed(POLL_S).lower():
            view.update(feed)
            size = shutil.get_terminal_size()
            if view.due(size):
                live.update(_shown(view.lines(size)), refresh=True)


class _View:
    """The content of the screen and its age."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._snapshot: FleetSnapshot | None = None
        self._trouble = ""
        self._came_at = self._drawn_at = float("-inf")
        self._drawn: tuple[int, int] | None = None

    def update(self, feed: Feed) -> None:
        """Take the newest snapshot or error from the feed."""
        update = feed.take(0)
        if isinstance(update, FleetSnapshot):
            self._snapshot, self._trouble, self._came_at = update, "", time.monotonic()
        elif isinstance(update, SageError):
            self._trouble = sentence(update)
        if update is not None:
            self._drawn = None

    def due(self, size: tuple[int, int]) -> bool:
        """Return whether to redraw: after a new snapshot or error, a new terminal size, or a second."""
        now = time.monotonic()
        if size == self._drawn and now - self._drawn_at < REDRAW_S:
            return False
        self._drawn, self._drawn_at = size, now
        return True

    def lines(self, size: tuple[int, int]) -> list[Text]:
        """Return the lines of the screen for (columns, lines)."""
        age_s = time.monotonic() - self._came_at
        return frame(self._snapshot, ConnectionState(address=self._address, trouble=self._trouble, age_s=age_s), *size)


def _shown(lines: list[Text]) -> Group:
    for line in lines:
        line.no_wrap, line.overflow = True, "crop"
    return Group(*lines)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """End normally at Ctrl-C.  At SIGTERM exit through Python, so that the terminal is restored."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)

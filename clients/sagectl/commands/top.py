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
from sagectl.options.command import command
from sagectl.options.connecting import ADDRESS, connecting
from sagectl.output.formats import Format, Output
from sagectl.output.screen import save_svg, show, stdout_console
from sagectl.output.sentences import sentence
from sagectl.top.feed import Feed
from sagectl.top.frame import Choices, ConnectionState, frame
from sagectl.top.keyboard import Keys
from sagectl.top.sorting import SortBy, chosen_by

DECISIONS = 64  # recent decisions to ask for; as many are shown as fit
POLL_S = 0.1  # seconds between two polls of the keyboard and the feed
REDRAW_S = 1.0  # seconds after which the screen is redrawn without a new snapshot, because ages grow
PICTURE_WIDTH, PICTURE_HEIGHT = 112, 32  # columns, lines


@command(
    examples=[
        ("top", "the fleet, live; q quits, ? lists the keys"),
        ("top --once", "one picture as text"),
        ("top --json --interval 5", "a snapshot a line every five seconds"),
    ]
)
@click.option(
    "--interval",
    type=click.FloatRange(0.25, 60.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two snapshots.",
)
@click.option(
    "--sort",
    "sort_by",
    type=click.Choice([each.value for each in SortBy], case_sensitive=False),
    default=SortBy.ID.value,
    show_default=True,
    help="Order of the instances; a key changes it.",
)
@click.option("--once", is_flag=True, help="Print one snapshot and exit; the default if stdout is not a terminal.")
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --once: also write an SVG picture to this file.",
)
@connecting
def top(client: Client, interval: float, sort_by: str, once: bool, svg: Path | None, output: Output) -> None:
    """Show the fleet live; q quits.

    Instances, queues, latency, attainment of targets, decisions and failovers; ? lists the keys.

    With --json every snapshot is printed as one line.  If the scheduler is unreachable, top reconnects.
    """
    address = click.get_current_context().meta[ADDRESS]
    if svg is not None and not once:
        raise click.UsageError("--svg needs --once")
    if once or output.format is Format.NAME or (output.for_people and not sys.stdout.isatty()):
        _show_once(client, address, SortBy(sort_by), svg, output)
        return
    with _ending_in_order(), Feed(client, interval_s=interval, decisions=DECISIONS) as feed:
        if output.for_people:
            _live(feed, address, SortBy(sort_by))
        else:
            _write_lines(feed, output)


def _show_once(client: Client, address: str, sort_by: SortBy, svg: Path | None, output: Output) -> None:
    with closing(client.watch_fleet(recent_decisions=DECISIONS)) as snapshots:
        snapshot = next(snapshots)
    here, choices = ConnectionState(address=address), Choices(sort_by=sort_by)
    if svg is not None:
        lines = frame(snapshot, here, PICTURE_WIDTH, PICTURE_HEIGHT, choices)
        save_svg(_shown(lines), svg, title="sagectl top", width=PICTURE_WIDTH)
    if output.format is Format.NAME:
        output.printed(snapshot, names=[each.instance_id for each in snapshot.instances])
    elif not output.printed_next(snapshot):
        console = stdout_console()
        height = console.height - 1 if console.is_terminal else None
        show(_shown(frame(snapshot, here, console.width, height, choices)), console)


def _write_lines(feed: Feed, output: Output) -> None:
    """Print a snapshot per line, or document, on stdout, and connection errors on stderr."""
    while True:
        update = feed.take(REDRAW_S)
        if isinstance(update, FleetSnapshot):
            output.printed_next(update)
        elif update is not None:
            click.echo(f"reconnecting: {sentence(update)}", err=True)


def _live(feed: Feed, address: str, sort_by: SortBy) -> None:
    view = _View(address, sort_by)
    with Keys() as keys, Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while "q" not in (pressed := keys.pressed(POLL_S).lower()):
            view.choose(pressed)
            view.update(feed)
            size = shutil.get_terminal_size()
            if view.due(size):
                live.update(_shown(view.lines(size)), refresh=True)


class _View:
    """The content of the screen and its age."""

    def __init__(self, address: str, sort_by: SortBy) -> None:
        self._address = address
        self._choices = Choices(sort_by=sort_by)
        self._snapshot: FleetSnapshot | None = None
        self._trouble = ""
        self._came_at = self._drawn_at = float("-inf")
        self._drawn: tuple[int, int] | None = None

    def choose(self, pressed: str) -> None:
        """Follow the keys that were pressed."""
        if pressed:
            listed = self._choices.help ^ (pressed.count("?") % 2 == 1)
            self._choices = Choices(sort_by=chosen_by(pressed, self._choices.sort_by), help=listed)
            self._drawn = None

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
        connection = ConnectionState(address=self._address, trouble=self._trouble, age_s=age_s)
        return frame(self._snapshot, connection, *size, self._choices)


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

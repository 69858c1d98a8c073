"""``sagectl explain``: prints a request's history and the reasons of its decisions."""

from __future__ import annotations

from pathlib import Path

import click

from sage_client import Client
from sagectl.options.command import command
from sagectl.options.completion import complete_request
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_request
from sagectl.output.formats import Output
from sagectl.output.screen import save_svg, show
from sagectl.output.story import story

PICTURE_WIDTH = 110  # columns


@command(
    examples=[
        ("explain night-1", "why it waited, where it ran, where its time went"),
        ("explain req-f9f7 --json", "by the beginning of its id, with every candidate"),
        ("explain night-1 --svg night-1.svg", "also as a picture"),
    ]
)
@click.argument("request_id", shell_complete=complete_request)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the output as an SVG picture to this file.",
)
@connecting
def explain(client: Client, request_id: str, svg: Path | None, output: Output) -> None:
    """Explain where a request ran, why, and where its time went.

    Prints in time order: arrival, why the request waited, every scheduling decision with its candidates and reasons,
    whether prefill and decode were split, failures and failovers.  Refused requests are not recorded.
    """
    explanation = with_request(client, request_id, client.explain)
    if svg is not None:
        save_svg(story(explanation), svg, title=f"sagectl explain {explanation.request_id}", width=PICTURE_WIDTH)
    if not output.printed(explanation, names=[explanation.request_id]):
        show(story(explanation))

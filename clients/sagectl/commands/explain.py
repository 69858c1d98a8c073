"""``sagectl explain``: prints a request's history and the reasons of its decisions."""

from __future__ import annotations

from pathlib import Path

import click

from sage_client import Client
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.screen import save_svg, show
from sagectl.output.story import story

PICTURE_WIDTH = 110  # columns


@click.command()
@click.argument("request_id")
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the output as an SVG picture to this file.",
)
@connecting
def explain(client: Client, request_id: str, svg: Path | None, as_json: bool) -> None:
    """Explain where a request ran, why, and where its time went.

    Prints in time order: arrival, why the request waited, every scheduling decision with its candidates and reasons,
    whether prefill and decode were split, failures and failovers.  Refused requests are not recorded.
    """
    explanation = client.explain(request_id)
    if svg is not None:
        save_svg(story(explanation), svg, title=f"sagectl explain {request_id}", width=PICTURE_WIDTH)
    if as_json:
        print_json(explanation)
    else:
        show(story(explanation))

"""``sagectl explain``."""

from __future__ import annotations

from pathlib import Path

import click

from sage_client import Client
from sagectl.connecting import connecting
from sagectl.json_output import print_json
from sagectl.screen import save_svg, show
from sagectl.story import story

PICTURE_WIDTH = 110  # columns


@click.command()
@click.argument("request_id")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Also write a picture of it here.")
@connecting
def explain(client: Client, request_id: str, svg: Path | None, as_json: bool) -> None:
    """Why a request went where it went, and where its time went.

    In time order: when it came, why it waited, every decision with its candidates and reasons, whether it was split,
    what failed and what was done about it.  A refused request leaves no record.
    """
    told = client.explain(request_id)
    if svg is not None:
        save_svg(story(told), svg, title=f"sagectl explain {request_id}", width=PICTURE_WIDTH)
    if as_json:
        print_json(told)
    else:
        show(story(told))

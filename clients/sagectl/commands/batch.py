"""``sagectl batch``: runs the lines of files."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

import sage_client as sage
from sage_client import Batch, Client
from sagectl.exit_status import ExitStatus
from sagectl.options.connecting import connecting
from sagectl.output.batch_progress import batch_progress, summary
from sagectl.output.json_output import print_json
from sagectl.output.tables import Cells, show_table

COLUMNS = ("id", "state", "lines", "completed", "failed", "class", "endpoint", "created", "ended", "kept until")
_NUMBERS = ("lines", "completed", "failed")
_DROP = ("class", "endpoint", "kept until", "ended", "created")
STDIN = "-"
PIECE_BYTES = 1024 * 1024
NAME_LIMIT = 100  # characters of a file's name that its batch's id begins with

_EXAMPLES = """\b
Examples:
  sagectl batch submit night.jsonl --wait
  sagectl batch results night.jsonl > answers.jsonl
  sagectl batch submit more.jsonl --batch-id more-2 --priority low --deadline 2h
  sagectl batch status more-2 --wait
"""


@click.group(epilog=_EXAMPLES)
def batch() -> None:
    """Run files of requests in OpenAI's batch format, which vLLM's run-batch takes, too.

    A batch needs no client: it goes on whatever happens to this command or to the scheduler.  It is named by its id, or
    by the file that it was submitted from: without --batch-id the id is made of the file's name and content.
    """


@batch.command(epilog="\b\nExample:\n  sagectl batch submit night.jsonl --endpoint /v1/chat/completions --wait")
@click.argument("file")
@click.option("--endpoint", default="", metavar="PATH", help="Of all lines.  Default: each line's own url.")
@click.option("--batch-id", default=None, metavar="ID", help="Default: made of the file's name and content.")
@click.option("--priority", default=None, help="Class of lines that name none.  Default: background.")
@click.option("--deadline", default=None, metavar="TIME", help="Longest time for all, such as 90m.  Default: a day.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="For your own use; may be repeated.")
@click.option("--keep-result", default=None, metavar="TIME", help="How long the results are kept after the end.")
@click.option("--wait", is_flag=True, help="Wait for the end, and show how far the batch is.")
@connecting
def submit(
    client: Client,
    file: str,
    endpoint: str,
    batch_id: str | None,
    priority: str | None,
    deadline: str | None,
    metadata: tuple[str, ...],
    keep_result: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Upload FILE, have its lines run, and print the batch's id.  With - the lines are read from stdin.

    The same file and options again give the batch that there is.
    """
    content = _stdin() if file == STDIN else Path(file)
    if batch_id is None and isinstance(content, Path):
        batch_id = _id_of_file(content)
    stored = client.upload_file(content, file_id=None if batch_id is None else f"{batch_id}-input")
    made = client.submit_batch(
        stored.file_id,
        endpoint=endpoint,
        batch_id=batch_id,
        priority=priority,
        deadline=deadline,
        metadata=_pairs(metadata),
        keep_result=keep_result,
    )
    if not as_json:
        click.echo(made.batch_id)
    _show(_waited(client, made) if wait else made, as_json, words_to_stderr=True)


@batch.command(epilog="\b\nExample:\n  sagectl batch status night.jsonl --wait")
@click.argument("file_or_id")
@click.option("--wait", is_flag=True, help="Wait for the end, and show how far the batch is.")
@connecting
def status(client: Client, file_or_id: str, wait: bool, as_json: bool) -> None:
    """Print how far a batch is."""
    found = client.get_batch(_id(file_or_id))
    _show(_waited(client, found) if wait else found, as_json)


@batch.command("list", epilog="\b\nExample:\n  sagectl batch list --limit 10 --json | jq '.[].batch_id'")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most batches to list.")
@connecting
def list_(client: Client, limit: int, as_json: bool) -> None:
    """List the tenant's batches, the latest first."""
    with closing(client.list_batches(page_size=min(limit, 1_000))) as found:
        listed = list(islice(found, limit))
    if as_json:
        print_json(listed)
    elif not listed:
        click.echo("no batches")
    else:
        show_table("batches", COLUMNS, [_row(e) for e in listed], right=_NUMBERS, whole=("id",), drop=_DROP)


@batch.command(epilog="\b\nExample:\n  sagectl batch results night.jsonl --wait --errors failed.jsonl > answers.jsonl")
@click.argument("file_or_id")
@click.option("--wait", is_flag=True, help="Wait for the end; otherwise fail if the batch has not ended.")
@click.option("--so-far", is_flag=True, help="Print what there is of a batch that has not ended.")
@click.option("--errors", type=click.Path(dir_okay=False, path_type=Path), help="File for the lines that failed.")
@connecting
def results(client: Client, file_or_id: str, wait: bool, so_far: bool, errors: Path | None, as_json: bool) -> None:
    """Print a batch's results, a JSON object a line: those that succeeded, then those that failed.

    Results come in the order in which lines ended: custom_id says which is which.  The exit status is 9 if a line
    failed, and 2 if the lines could not be run.
    """
    found = client.get_batch(_id(file_or_id))
    if wait:
        found = _waited(client, found)
    if not found.ended and not so_far:
        click.echo(f"{found.batch_id}: {summary(found)}; --wait waits for its end", err=True)
        sys.exit(ExitStatus.CONFLICT)
    if found.state is sage.BatchState.FAILED:
        raise sage.BatchFailedError.of_batch(found)
    out = sys.stdout.buffer
    with ExitStack() as opened:
        failed = out if errors is None else opened.enter_context(errors.open("wb"))
        _copy(client, found.tenant, found.output_file_id, out)
        _copy(client, found.tenant, found.error_file_id, failed)
    if found.counts.failed:
        click.echo(f"{found.batch_id}: {summary(found)}", err=True)
        sys.exit(ExitStatus.GENERATION_FAILED)


@batch.command(epilog="\b\nExample:\n  sagectl batch cancel night.jsonl")
@click.argument("file_or_id")
@connecting
def cancel(client: Client, file_or_id: str, as_json: bool) -> None:
    """Cancel a batch.  The results that there are stay."""
    _show(client.cancel_batch(_id(file_or_id)), as_json)


def _waited(client: Client, of: Batch) -> Batch:
    """Wait for a batch's end, and return it."""
    try:
        with batch_progress() as progress:
            return client.wait_batch(of.batch_id, tenant=of.tenant, on_progress=progress)
    except KeyboardInterrupt:
        click.echo(f"interrupted; the batch goes on; to end it: sagectl batch cancel {of.batch_id}", err=True)
        sys.exit(ExitStatus.INTERRUPTED)


def _show(found: Batch, as_json: bool, *, words_to_stderr: bool = False) -> None:
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.batch_id}: {summary(found)}", err=words_to_stderr)
    for fault in found.faults:
        where = f"line {fault.line}: " if fault.line is not None else ""
        click.echo(f"  {where}{fault.message}", err=words_to_stderr)


def _copy(client: Client, tenant: str, file_id: str, to: BinaryIO) -> None:
    """Write a stored file; nothing if there is none."""
    if not file_id:
        return
    with closing(client.read_file(file_id, tenant=tenant)) as pieces:
        for piece in pieces:
            to.write(piece)
    to.flush()


def _id(file_or_id: str) -> str:
    """Return the id that an argument gives: that of the batch of a file, if there is such a file."""
    path = Path(file_or_id)
    return _id_of_file(path) if path.is_file() else file_or_id


def _id_of_file(path: Path) -> str:
    """Return the id of the batch that is submitted from a file without an id.  Raises InvalidRequestError."""
    try:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise sage.ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    name = "".join(each if each.isprintable() else "-" for each in path.stem)
    return f"{name[:NAME_LIMIT]}-{content[:12]}"


def _stdin() -> Iterator[bytes]:
    stdin = sys.stdin.buffer
    while piece := stdin.read(PIECE_BYTES):
        yield piece


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    for pair in given:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--metadata")
    return {key: value for key, _, value in (pair.partition("=") for pair in given)}


def _row(found: Batch) -> Cells:
    counts = found.counts
    return (
        found.batch_id,
        found.state.value,
        str(counts.total),
        str(counts.completed),
        str(counts.failed),
        found.priority.name,
        found.endpoint,
        _time(found.created_at),
        _time(found.ended_at),
        _time(found.keep_until),
    )


def _time(at: datetime | None) -> str:
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")

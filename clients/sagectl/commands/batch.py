"""``sagectl batch``: runs the lines of files."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO

import click

import sage_client as sage
from sage_client import Batch, Client
from sagectl.exit_status import ExitStatus
from sagectl.options.command import group
from sagectl.options.completion import complete_batch
from sagectl.options.connecting import connecting, connecting_for
from sagectl.options.generation import PRIORITIES
from sagectl.options.prefixes import with_batch
from sagectl.output.batch_progress import batch_progress, summary
from sagectl.output.durations import duration, local_time
from sagectl.output.formats import Format, Output
from sagectl.output.tables import Cells, show_table

COLUMNS = ("id", "state", "age", "lines", "completed", "failed", "class", "endpoint", "created", "ended", "kept until")
_NUMBERS = ("lines", "completed", "failed")
_WHOLE = ("id", "state", "age", "class", "created", "ended", "kept until", *_NUMBERS)
_DROP = ("kept until", "ended", "created", "endpoint", "class", "age", "completed")
"""Columns that a narrow terminal leaves out, the least important first."""

STDIN = "-"
PIECE_BYTES = 1024 * 1024
STDIN_LIMIT_BYTES = 1024 * PIECE_BYTES  # of the copy on the disk; the scheduler's limit of a file is lower as a rule
NAME_LIMIT = 100  # characters of a file's name that its batch's id begins with


@group(
    examples=[
        ("batch submit night.jsonl --wait", "run its lines, and show how far the batch is"),
        ("batch results night.jsonl > answers.jsonl", "a JSON object a line"),
    ]
)
def batch() -> None:
    """Run files of requests in OpenAI's batch format, which vLLM's run-batch takes, too.

    A batch needs no client: it goes on whatever happens to this command or to the scheduler.  It is named by its id, or
    by the file that it was submitted from: without --batch-id the id is made of the file's name and content.
    """


@batch.command(
    "submit",
    examples=[
        ("batch submit night.jsonl --wait", "a file of vllm run-batch's format"),
        ("batch submit more.jsonl --batch-id more-2 --priority low --deadline 7200", "under an id of your own"),
    ],
)
@click.argument("file")
@click.option("--endpoint", default="", metavar="PATH", help="Of all lines.  [default: each line's own url]")
@click.option("--batch-id", default=None, metavar="ID", help="[default: made of the file's name and content]")
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES, case_sensitive=False),
    help="Class of lines that name none.  [default: background]",
)
@click.option("--deadline", type=float, metavar="SECONDS", help="Longest time for all lines.  [default: a day]")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="For your own use; may be repeated.")
@click.option("--keep-result", type=float, metavar="SECONDS", help="Seconds to keep the results after the end.")
@click.option("--wait", is_flag=True, help="Wait for the end, and show how far the batch is.")
@connecting
def submit(
    client: Client,
    file: str,
    endpoint: str,
    batch_id: str | None,
    priority: str | None,
    deadline: float | None,
    metadata: tuple[str, ...],
    keep_result: float | None,
    wait: bool,
    output: Output,
) -> None:
    """Upload FILE, have its lines run, and print the batch's id.  With - the lines are read from stdin.

    The same file and options again give the batch that there is.  With --wait the exit status is 9 if a line failed,
    and 2 if the lines could not be run.
    """
    if batch_id is None and file != STDIN:
        batch_id = _id_of_file(Path(file))
    file_id = None if batch_id is None else f"{batch_id}-input"
    with _lines_of(file) as path:
        stored = client.upload_file(path, file_id=file_id, name="" if file == STDIN else None)
    made = client.submit_batch(
        stored.file_id,
        endpoint=endpoint,
        batch_id=batch_id,
        priority=priority,
        deadline=deadline,
        metadata=_pairs(metadata),
        keep_result=keep_result,
    )
    if output.for_people:
        click.echo(made.batch_id)
    last = _waited(client, made) if wait else made
    _show(last, output, words_to_stderr=True)
    if wait:
        sys.exit(_exit_status(last))


@batch.command(
    "status",
    examples=[
        ("batch status night.jsonl --wait", "by the file it came from; wait for its end"),
        ("batch status more-2 --json", "by its id, with everything"),
    ],
)
@click.argument("file_or_id", shell_complete=complete_batch)
@click.option("--wait", is_flag=True, help="Wait for the end, and show how far the batch is.")
@connecting
def status(client: Client, file_or_id: str, wait: bool, output: Output) -> None:
    """Print how far a batch is.

    With --wait the exit status is 9 if a line failed, and 2 if the lines could not be run.
    """
    found = with_batch(client, _id(file_or_id), client.get_batch)
    last = _waited(client, found) if wait else found
    _show(last, output)
    if wait:
        sys.exit(_exit_status(last))


@batch.command(
    "list", examples=[("batch list", "the latest 100"), ("batch list --limit 10 -o name", "ids only, for a script")]
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most batches to list.")
@connecting
def list_(client: Client, limit: int, output: Output) -> None:
    """List the tenant's batches, the latest first."""
    with closing(client.list_batches(page_size=min(limit, 1_000))) as found:
        listed = list(islice(found, limit))
    if output.printed(listed, names=[each.batch_id for each in listed]):
        return
    if not listed:
        click.echo("no batches")
    else:
        rows = [_row(each) for each in listed]
        show_table("", COLUMNS, rows, right=_NUMBERS, whole=_WHOLE, drop=_DROP, wide=output.wide)


@batch.command(
    "results",
    examples=[
        ("batch results night.jsonl --wait > answers.jsonl", "once it has ended"),
        ("batch results more-2 --errors failed.jsonl", "lines that failed apart"),
    ],
)
@click.argument("file_or_id", shell_complete=complete_batch)
@click.option("--wait", is_flag=True, help="Wait for the end; otherwise fail if the batch has not ended.")
@click.option("--so-far", is_flag=True, help="Print what there is of a batch that has not ended.")
@click.option("--errors", type=click.Path(dir_okay=False, path_type=Path), help="File for the lines that failed.")
@connecting_for(Format.JSON)
def results(client: Client, file_or_id: str, wait: bool, so_far: bool, errors: Path | None, output: Output) -> None:
    """Print a batch's results, a JSON object a line: those that succeeded, then those that failed.

    Results come in the order in which lines ended: custom_id says which is which.  The exit status is 9 if a line
    failed, or the batch expired or was cancelled, and 2 if the lines could not be run.
    """
    found = with_batch(client, _id(file_or_id), client.get_batch)
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
    if status := _exit_status(found):
        click.echo(f"{found.batch_id}: {summary(found)}", err=True)
        sys.exit(status)


@batch.command("cancel", examples=[("batch cancel night.jsonl", "the results that there are stay")])
@click.argument("file_or_id", shell_complete=complete_batch)
@connecting
def cancel(client: Client, file_or_id: str, output: Output) -> None:
    """Cancel a batch.  The results that there are stay."""
    _show(with_batch(client, _id(file_or_id), client.cancel_batch), output)


def _waited(client: Client, of: Batch) -> Batch:
    """Wait for a batch's end, and return it."""
    try:
        with batch_progress() as progress:
            return client.wait_batch(of.batch_id, tenant=of.tenant, on_progress=progress)
    except KeyboardInterrupt:
        click.echo(f"interrupted; the batch goes on; to end it: sagectl batch cancel {of.batch_id}", err=True)
        sys.exit(ExitStatus.INTERRUPTED)


def _exit_status(found: Batch) -> ExitStatus:
    """Return how a command ends that waited for a batch, or printed its results."""
    if found.state is sage.BatchState.FAILED:
        return ExitStatus.INVALID
    unfinished = found.ended and found.state is not sage.BatchState.COMPLETED
    return ExitStatus.GENERATION_FAILED if unfinished or found.counts.failed else ExitStatus.OK


def _show(found: Batch, output: Output, *, words_to_stderr: bool = False) -> None:
    if output.printed(found, names=[found.batch_id]):
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
    """Return the id of the batch that is submitted from a file without an id.  Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise sage.ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    name = "".join(each if each.isprintable() else "-" for each in path.stem)
    return f"{name[:NAME_LIMIT]}-{content[:12]}"


@contextmanager
def _lines_of(file: str) -> Iterator[Path]:
    """Give the path of what is to be uploaded, while the block runs: of a copy of stdin, which may be sent again.

    Raises InvalidRequestError if stdin has more than STDIN_LIMIT_BYTES.
    """
    if file != STDIN:
        yield Path(file)
        return
    with NamedTemporaryFile(prefix="sagectl-batch-") as copy:
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            if copy.tell() + len(piece) > STDIN_LIMIT_BYTES:
                raise sage.InvalidRequestError(f"stdin has more than {STDIN_LIMIT_BYTES} bytes")
            copy.write(piece)
        copy.flush()
        yield Path(copy.name)


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
        duration((datetime.now(UTC) - found.created_at).total_seconds()),
        str(counts.total),
        str(counts.completed),
        str(counts.failed),
        found.priority.name.lower(),
        found.endpoint,
        local_time(found.created_at),
        local_time(found.ended_at),
        local_time(found.keep_until),
    )

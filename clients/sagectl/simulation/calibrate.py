"""``sagectl simulate calibrate``: fits the engine model to what a scheduler recorded."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from sagectl.options.command import command
from sagectl.simulation.inputs import named
from sagectl.simulation.json_file import write_json
from sagectl.simulation.predictions import draw_predictions, show_predictions
from sagectl.simulation.report import check_folder, check_report
from sagectl.simulation.tables import Table
from sagectl.simulation.values import Number, OutputFile

if TYPE_CHECKING:
    from sage_simulator.calibration.calibration import Calibration, InstanceFit
    from sage_simulator.calibration.replay import Replay

_REPLAYED = 2_000  # latest requests, by default

_FIT_COLUMNS = (
    "instance",
    "iterations",
    "base, ms",
    "prefill token, µs",
    "sequence, µs",
    "context token, ns",
    "error, mean",
    "p90",
)


@command(
    examples=[
        ("simulate calibrate log.jsonl --out fleet.json", "fit engines to what sage-scheduler --record wrote"),
        ("simulate calibrate log.jsonl --plot predicted.svg", "how close its predictions came"),
    ]
)
@click.argument("recording", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Fleet file to write.")
@click.option("--model", metavar="NAME", help="Fit the instances of this model only.")
@click.option("--from", "from_s", type=Number(0), default=0.0, metavar="SECONDS", help="Leave out what came before.")
@click.option("--to", "to_s", type=Number(0), metavar="SECONDS", help="And after.")
@click.option(
    "--replay",
    "replayed",
    type=click.IntRange(0),
    default=_REPLAYED,
    show_default=True,
    metavar="N",
    help="Simulate the latest N recorded requests on the fitted fleet, and compare; 0: none.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw what was predicted against what came, as SVG.",
)
@click.option("--json", "json_file", type=OutputFile(), metavar="FILE", help="Write the result as JSON; - for stdout.")
def calibrate(
    recording: Path,
    out: Path | None,
    model: str | None,
    from_s: float,
    to_s: float | None,
    replayed: int,
    plot: Path | None,
    json_file: IO[str] | None,
) -> None:
    """Fit the engine model to RECORDING, a file of `sage-scheduler --record`.

    The time of a step is fitted for each instance: a base, and a time for each prefill token, running sequence and
    token of context.  Delay, heartbeats and random variation are fitted to the fleet.  `run` and `sweep` take what
    --out FILE writes as --fleet FILE.  What the recorded scheduler predicted is compared with what came.
    """
    # The simulator needs the scheduler's package, which the other commands do without.
    from sage_simulator.calibration.calibration import calibrate as fit
    from sage_simulator.calibration.predictions import predictions
    from sage_simulator.calibration.replay import replay
    from sage_simulator.fleet_file import write_fleet
    from sage_simulator.traces.recording.log_reader import read_log

    check_report(plot, "--plot")
    check_folder(out, "--out")
    until_s = float("inf") if to_s is None else to_s
    if until_s <= from_s:
        raise click.UsageError(f"--to {until_s:g} is not after --from {from_s:g}")
    try:
        whole = read_log(recording)
        log = whole.between(from_s, until_s)
        with named(str(recording)):
            found = fit(log, model)
        names = {each.instance for each in found.instances}
        requests = [each for each in log.requests if each.instance in names][-replayed:] if replayed else []
        again = replay(requests, found.fleet) if requests else None
        told = predictions((each for each in whole.requests if each.instance in names), from_s, until_s)
        if out is not None:
            write_fleet(found.fleet, out)
        if plot is not None:
            draw_predictions(told, plot)
    except ValueError as e:  # of the recording, the fit or the simulation, said in a sentence
        raise click.UsageError(str(e)) from None
    except OSError as e:
        raise click.UsageError(f"{e.filename}: {e.strerror}") from None
    errors = told.errors()
    if write_json({"json_file": json_file}, calibration=found, replay=again, predictions=errors):
        return
    _show(found)
    if again is not None:
        _show_replay(again)
    show_predictions(errors)
    for file in (out, plot):
        if file is not None:
            click.echo(f"wrote {file}")


def _show(found: Calibration) -> None:
    title = "Fitted time of a step; error: of single iterations, as a share of the fitted time"
    Table(title=title, columns=_FIT_COLUMNS, rows=[_row(each) for each in found.instances]).show()
    for each in found.instances:
        if each.pooled:
            click.echo(f"{each.instance}: too few iterations of its own, fitted to those of all of its model")
        elif each.fit.untold:
            click.echo(f"{each.instance}: the iterations do not tell the time of a {', '.join(each.fit.untold)}")
    how = f"{found.idle_starts} requests that had an instance alone"
    delay = f"from {how}" if found.delay_fitted else f"a default: {how}, too few"
    beats = found.heartbeats
    click.echo(f"delay between scheduler and engine: {found.delay_s * 1e3:.2f} ms each way ({delay})")
    click.echo(
        f"noise of a step: sigma {found.noise:.2f}; heartbeats every {beats.gap_s:.2f} to {beats.interval_s:.2f} s"
    )


def _row(each: InstanceFit) -> tuple[str, ...]:
    pace, fit = each.fit.pace, each.fit
    return (
        each.instance,
        str(fit.samples),
        f"{pace.base_s * 1e3:.3f}",
        f"{pace.prefill_token_s * 1e6:.2f}",
        f"{pace.running_s * 1e6:.2f}",
        f"{pace.kv_token_s * 1e9:.2f}",
        f"{fit.mean_error:.0%}",
        f"{fit.p90_error:.0%}",
    )


def _show_replay(again: Replay) -> None:
    errors, simulated = again.errors(), again.simulated.figures()
    rows = [
        (name, _ms(measured), _ms(simulated[name]), "-" if errors[name] is None else f"{errors[name]:+.0%}")
        for name, measured in again.measured.figures().items()
    ]
    title = f"{again.requests} recorded requests, simulated under {again.policy}; ms"
    columns = ("", "measured", "simulated", "off by")
    Table(title=title, columns=columns, rows=rows).show()


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"

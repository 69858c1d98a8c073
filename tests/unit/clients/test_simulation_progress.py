"""The progress bar on stderr: what ends is passed on, with and without a terminal."""

from __future__ import annotations

from functools import partial
from io import StringIO

import pytest
from rich.console import Console

from sagectl.simulation import progress as simulation_progress


def test_without_a_terminal_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(simulation_progress.progress(iter("abc"), 3, "runs")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("total", [3, None])
def test_on_a_terminal_a_bar_counts_what_ended(total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    console = partial(Console, file=written, force_terminal=True, width=80)
    monkeypatch.setattr(simulation_progress, "Console", lambda **_: console())
    assert list(simulation_progress.progress(iter("abc"), total, "runs")) == ["a", "b", "c"]
    assert "runs" in written.getvalue()
    assert f"3/{total or '?'}" in written.getvalue()

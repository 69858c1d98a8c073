"""The times that ``sagectl usage`` takes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from sagectl import cli


@pytest.mark.parametrize("given", ["yesterday", "99999999999w", "2026-13-01", "12", "-1h", "0001-01-01T00:00+23:00"])
def test_a_time_that_is_none_is_refused_in_words(given: str) -> None:
    refused = CliRunner().invoke(cli.sagectl, ["usage", "--since", given])
    assert refused.exit_code == 2, refused.output
    assert "neither a time such as" in refused.output

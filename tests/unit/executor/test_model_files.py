"""The configuration that an executor sends along, for front ends."""

from __future__ import annotations

import pytest

from executor_svc.transport.control_messages import _bounded
from sage_wire.protocol import MODEL_CONFIG_LIMIT_BYTES


def test_a_configuration_is_sent_up_to_its_limit() -> None:
    content = "x" * MODEL_CONFIG_LIMIT_BYTES
    assert _bounded(content, "config.json") == content


def test_a_larger_one_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert _bounded("x" * (MODEL_CONFIG_LIMIT_BYTES + 1), "config.json") == ""
    assert "config.json of the model has 262145 bytes" in caplog.text

"""Settings of one model: sampling defaults."""

from __future__ import annotations

from typing import Any

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from sage_common.configuration import Section, in_one_line
from scheduler_svc.domain.admission import check_sampling
from scheduler_svc.domain.request import Sampling

ENDLESS_TOKENS = 2**31
"""The max_tokens that is used to check sampling defaults which do not set it."""

_SAMPLING = TypeAdapter(Sampling)
_SAMPLING_DEFAULTS = set(Sampling.__dataclass_fields__) - {
    "structured_output",
    "logit_bias",
    "cache_salt",
    "engine_options",
}


class ModelSection(Section):
    """Settings of one model."""

    sampling: dict[str, Any] = Field(
        default_factory=dict, description="Sampling parameters used where a request leaves them open."
    )

    @field_validator("sampling")
    @classmethod
    def _are_sampling_parameters(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in _SAMPLING_DEFAULTS:
                there_are = ", ".join(sorted(_SAMPLING_DEFAULTS))
                raise ValueError(f"{name!r} is not a sampling field; there are: {there_are}")
        try:
            sampling = _SAMPLING.validate_python({"max_tokens": ENDLESS_TOKENS, **value})
        except ValidationError as error:
            raise ValueError(in_one_line(error)) from error
        found = check_sampling(sampling, vocab_size=2**32)
        if found:
            raise ValueError("; ".join(f"{v.field.removeprefix('spec.sampling.')}: {v.description}" for v in found))
        return {name: getattr(sampling, name) for name in value}

"""A group of a fleet: executors with one model, one role and one size."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from sage_common.configuration import Section
from sage_fleet.specification.names import Name

Role = Literal["general", "prefilling", "decoding", "hybrid", "embedding"]
SPLIT_ROLES = frozenset({"prefilling", "decoding", "hybrid"})  # roles that take part in split requests

EXECUTORS_LIMIT = 1_000
"""Most executors of a group."""


class GroupSection(Section):
    """A group of executors, with a fixed ``count``, or with ``min`` and ``max`` for the controller to choose in."""

    model: str = Field(min_length=1, description="Hub id (org/name) or path that the executors load.")
    revision: str = Field(default="", description="Branch, tag or commit of a hub model.  Default: the newest.")
    served_name: str = Field(default="", description="Model name that requests ask for.  Default: `model`.")
    engine: Literal["vllm", "simulated"] = Field(default="vllm", description="Engine of the executors.")
    engine_arguments: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Settings of the engine by the executor's names: max_model_len, max_running, engine_args ...",
    )
    role: Role = Field(default="general", description="Kind of work that the scheduler sends to the group.")
    count: int | None = Field(default=None, ge=0, le=EXECUTORS_LIMIT, description="Number of executors.  Default: 1.")
    min: int | None = Field(default=None, ge=0, le=EXECUTORS_LIMIT, description="Least executors that are kept.")
    max: int | None = Field(default=None, ge=1, le=EXECUTORS_LIMIT, description="Most executors that are started.")
    keep_asleep: int = Field(
        default=0,
        ge=0,
        le=EXECUTORS_LIMIT,
        description="Most executors beyond what is needed that sleep instead of ending.  They are woken first.",
    )
    gpus: int = Field(default=0, ge=0, le=1024, description="GPUs of each engine; 0: it computes on the CPU.")
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that each layer is split over.")
    pipeline_parallel: int = Field(default=1, ge=1, description="Groups of GPUs that the layers are split over.")
    device_group: Name | Literal[""] = Field(
        default="",
        description="Groups of one device_group share their GPUs and take turns on them, by sleeping.  "
        "Default: GPUs of its own.",
    )
    cpus: int = Field(default=1, ge=1, le=1024, description="CPU cores of each executor.")
    memory_gib: int = Field(default=16, ge=1, description="Memory of each executor, in GiB.  Kubernetes reserves it.")
    price_per_hour: float = Field(default=0.0, ge=0.0, description="Price of one executor per hour, in any currency.")
    zone: str = Field(default="", description="Zone of the executors.  Default: what the place knows of the node.")

    @model_validator(mode="after")
    def _fixed_or_between(self) -> Self:
        if self.count is not None and (self.min is not None or self.max is not None):
            raise ValueError("count stands alone: give count, or min and max")
        if (self.min is None) != (self.max is None):
            raise ValueError("min and max go together")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min}, more than max, which is {self.max}")
        return self

    @model_validator(mode="after")
    def _every_part_has_a_gpu(self) -> Self:
        parts = self.tensor_parallel * self.pipeline_parallel
        if parts > 1 and self.gpus != parts:
            raise ValueError(f"gpus is {self.gpus}, but tensor_parallel x pipeline_parallel is {parts}")
        if parts == 1 and self.gpus > 1:
            raise ValueError(f"gpus is {self.gpus}: say by tensor_parallel or pipeline_parallel how they are used")
        return self

    @model_validator(mode="after")
    def _may_sleep(self) -> Self:
        asked = "device_group" if self.device_group else "keep_asleep" if self.keep_asleep else ""
        if asked and self.engine == "vllm" and not self.gpus:
            raise ValueError(f"{asked}: vLLM sleeps on GPUs only: give gpus")
        if asked and self.role in SPLIT_ROLES:
            raise ValueError(f"{asked}: executors of the role {self.role} hand over KV, and cannot sleep")
        if self.keep_asleep and not self.is_scaled:
            raise ValueError("keep_asleep: needs min and max")
        if self.device_group and (self.is_scaled or self.most > 1):
            raise ValueError("device_group: a group that shares its GPUs has one executor: no count, min and max")
        return self

    @property
    def sleeps(self) -> bool:
        """Whether engines of the group have to be able to sleep."""
        return bool(self.device_group or self.keep_asleep)

    @property
    def name_in_requests(self) -> str:
        """The model name that requests ask for."""
        return self.served_name or self.model

    @property
    def is_scaled(self) -> bool:
        """Whether the controller may choose the number of executors."""
        return self.min is not None

    @property
    def least(self) -> int:
        """The least number of executors."""
        if self.min is not None:
            return self.min
        return 1 if self.count is None else self.count

    @property
    def most(self) -> int:
        """The largest number of executors."""
        return self.max if self.max is not None else self.least

    def bounded(self, count: int) -> int:
        """Return the number of executors nearest to ``count`` that this group may have."""
        return min(max(count, self.least), self.most)

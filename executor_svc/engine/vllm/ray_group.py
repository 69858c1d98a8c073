"""Has the workers of an engine run in a placement group of Ray that others made, on several nodes."""

from __future__ import annotations

from typing import Any

from executor_svc.runtime.engine_port import EngineError

NAMESPACE = "sage"  # of Ray, in which fleets name their placement groups


def in_group(engine_args: Any, name: str) -> Any:
    """Return engine arguments whose configuration has the placement group of this name.

    vLLM takes only the group of the actor that it runs in, and this process is a child of that actor.  Raises
    EngineError if Ray is not installed, does not run here or has no such group.
    """
    group = _find(name)
    engine_args.distributed_executor_backend = "ray"
    make_config = engine_args.create_engine_config

    def create_engine_config(*args: Any, **options: Any) -> Any:
        config = make_config(*args, **options)
        config.parallel_config.placement_group = group
        return config

    engine_args.create_engine_config = create_engine_config
    return engine_args


def _find(name: str) -> Any:
    try:
        import ray
    except ModuleNotFoundError as absent:
        raise EngineError("vllm.ray_placement_group: ray is not installed") from absent
    try:
        if not ray.is_initialized():
            ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False)
        return ray.util.get_placement_group(name)
    except (ConnectionError, ValueError) as error:
        raise EngineError(f"vllm.ray_placement_group: {name}: {' '.join(str(error).split())}") from error

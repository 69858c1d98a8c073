"""What an image holds, and as whom it runs."""

from __future__ import annotations

import pytest

from tests.images.podman import podman
from tests.images.stack import LIMITS

pytestmark = pytest.mark.timeout(1_800)  # the first test builds the images

SERVICES = {"sage-scheduler": "scheduler_svc", "sage-executor:cpu": "executor_svc", "sage-gateway": "sage_gateway"}
MISSING = {  # packages that an image must not have
    "sage-scheduler": ["vllm", "torch", "pip", "executor_svc", "sage_client"],
    "sage-executor:cpu": ["pip", "scheduler_svc", "sage_client"],
    "sage-gateway": ["pip", "scheduler_svc"],
}


def python(image: str, program: str) -> str:
    return podman("run", "--rm", "--network=none", "--entrypoint", "python", *_limits(), image, "-c", program)


def _limits() -> list[str]:
    return [word for name, most in LIMITS.items() for word in ("--ulimit", f"{name}={most}:{most}")]


@pytest.mark.parametrize("image", SERVICES)
def test_an_image_has_its_service_and_none_of_what_it_does_not_need(images: None, image: str) -> None:
    wanted, unwanted = SERVICES[image], MISSING[image]
    program = f"from importlib.util import find_spec as f; print(bool(f({wanted!r})), *filter(f, {unwanted!r}))"
    assert python(image, program).split() == ["True"]


@pytest.mark.parametrize("image", SERVICES)
def test_an_image_runs_as_an_ordinary_user(images: None, image: str) -> None:
    assert python(image, "import os; print(os.getuid())").strip() == "10001"


def test_the_schedulers_image_has_the_domain_compiled(images: None) -> None:
    program = "from scheduler_svc.domain.build import build_name; print(build_name())"
    assert python("sage-scheduler", program).strip() == "compiled"


def test_a_scheduler_that_anyone_could_reach_does_not_start(images: None) -> None:
    printed = podman("run", "--network=none", *_limits(), "--name", "sage-open", "sage-scheduler", check=False)
    try:
        status = podman("inspect", "--format", "{{.State.ExitCode}}", "sage-open").strip()
    finally:
        podman("rm", "sage-open", check=False)
    assert (printed, status) == ("", "2")

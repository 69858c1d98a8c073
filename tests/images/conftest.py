"""The images, built once, and the services, started once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.images.podman import PODMAN, build
from tests.images.stack import Stack, running

PROGRAMS = {PODMAN[0]: "podman", "docker-compose": "docker-compose"}


@pytest.fixture(scope="session")
def images() -> None:
    """Build our three images, under the names that the compose file has for them."""
    if os.geteuid() != 0:
        pytest.skip("building and running images needs root here")
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian and Ubuntu: apt-get install {package})")
    build("scheduler.Dockerfile", "sage-scheduler")
    build("executor.Dockerfile", "sage-executor:cpu", target="cpu")
    build("executor.Dockerfile", "sage-gateway", target="gateway")


@pytest.fixture(scope="session")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("podman")) as started:
        yield started

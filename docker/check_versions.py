"""Fails the build of the GPU image if its base image has an unsupported vLLM version, or no NIXL."""

from __future__ import annotations

import sys
from importlib import metadata, util

OLDEST = (0, 26)
NEWEST = (0, 32)


def main() -> int:
    """Return 0 if the installed vLLM is supported and NIXL is installed, else 1.  Print the versions or the error."""
    version = metadata.version("vllm")
    if not OLDEST <= tuple(int(part) for part in version.split(".")[:2]) <= NEWEST:
        print(f"vLLM {version} is not supported", file=sys.stderr)
        return 1
    if util.find_spec("nixl") is None:
        print("nixl is not installed", file=sys.stderr)
        return 1
    print(f"vLLM {version}, nixl {metadata.version('nixl')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds plain Python or, where the environment says ``SAGE_COMPILE=1``, the scheduler's domain compiled with mypyc.

``SAGE_COMPILE_LEVEL`` is the C compiler's level of optimization, 2 where it is not set.  What a developer must know
is in CONTRIBUTING.md, "The compiled domain".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

DOMAIN = Path("scheduler_svc/domain")

#: Commands that compile; pip also asks for what a build requires, and for metadata.
COMPILING = frozenset(("build", "bdist_wheel"))

#: Parts of the domain that stay Python, and why.
INTERPRETED = (
    "scheduler.py",  # inherits from several classes, which compiled classes cannot
    "entrance",  # the classes it inherits from; each method calls a compiled one
    "request.py",  # pydantic makes sampling defaults of its classes, for which it sets their ``__dict__``
    "decision.py",  # a decorator that makes dataclasses, which mypyc takes for those of the standard library only
    "capacity/figures.py",  # columns are set by name and read late by ``__getattr__``; the work in it is numpy's
    "policies/baselines",  # for comparison: nobody needs them fast
)


def compiled_modules() -> list[str]:
    """Return the files that are compiled, sorted."""
    left_out = [DOMAIN / each for each in INTERPRETED]
    return sorted(
        str(file)
        for file in DOMAIN.rglob("*.py")
        if file.name != "__init__.py" and not any(file == each or each in file.parents for each in left_out)
    )


def extensions() -> list[Extension]:
    """Return the extension modules; none unless the environment asks for them and the command builds them.

    An editable install stays Python: its compiled files would lie beside the sources, and hide later edits.
    """
    if os.environ.get("SAGE_COMPILE") != "1" or COMPILING.isdisjoint(sys.argv):
        return []
    from mypyc.build import mypycify

    found: list[Extension] = mypycify(
        [f"--cache-dir={os.devnull}", *compiled_modules()],  # mypy may run beside it, and has the cache for itself
        opt_level=os.environ.get("SAGE_COMPILE_LEVEL", "2"),
        multi_file=True,
        group_name="sage_domain",
    )
    return found


setup(ext_modules=extensions())

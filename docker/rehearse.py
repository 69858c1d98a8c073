"""Carries out the steps of a Dockerfile in a directory, on a machine without Docker (Debian, as root).

    python docker/rehearse.py build docker/scheduler.Dockerfile --out DIR [--target STAGE] [--arg NAME=VALUE]
        [--carry /etc/pip.conf]
    python docker/rehearse.py start DIR [-e NAME=VALUE] [--bind HOST:PATH] [-- the service's flags]
    python docker/rehearse.py health DIR

Every base image is a clean Debian made by mmdebstrap that contains Python and nothing else.  The steps run in it by
chroot, as the user that the Dockerfile names.  Instructions that our Dockerfiles do not use are refused.  A chroot does
not isolate network, processes or memory, and it has no layers.  ``--carry`` copies files of this machine that the
package installer needs into the root; they are not part of the image.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTER = """
set -eu
root=$1; shift
while [ "$1" != -- ]; do mkdir -p "$root/${1#*:}"; mount --bind "${1%%:*}" "$root/${1#*:}"; shift; done; shift
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
exec "$@"
"""


class CannotRehearse(Exception):
    """The Dockerfile cannot be carried out on this machine; the message is one sentence."""


@dataclass(kw_only=True, slots=True)
class Stage:
    """One build stage (a FROM and the instructions after it), as a directory and a configuration."""

    root: Path
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def command(
        self, words: list[str], *, extra: dict[str, str], user: str = "0", bind: tuple[str, ...] = ()
    ) -> list[str]:
        """Return the command that runs ``words`` inside the stage, as ``user``, with ``extra`` variables."""
        variables = [f"{name}={value}" for name, value in {**self.variables, **extra}.items()]
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        enter = [*apart, "sh", "-c", ENTER, "sh", str(self.root), *bind, "--"]
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder, *words]
        return [*enter, "chroot", f"--userspec={user}", str(self.root), "/usr/bin/env", "-i", *variables, *inside]

    def keep(self) -> None:
        """Write the configuration beside the root, for ``load``."""
        known = {"variables": self.variables, "folder": self.folder, "user": self.user}
        kept = {**known, "entrypoint": self.entrypoint, "health": self.health}
        self.root.with_suffix(".json").write_text(json.dumps(kept, indent=1))

    @classmethod
    def load(cls, root: Path) -> Stage:
        """Read a stage that ``keep`` wrote."""
        return cls(root=root, **json.loads(root.with_suffix(".json").read_text()))


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction and its arguments; comments are dropped and continued lines joined."""
    text = "\n".join(line for line in dockerfile.splitlines() if not re.match(r"\s*(#|$)", line))
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


class Build:
    """Carries out the instructions of one Dockerfile, one method per instruction."""

    def __init__(self, dockerfile: Path, out: Path, arguments: dict[str, str], carry: list[Path]) -> None:
        self._steps = list(instructions(dockerfile.read_text()))
        self._out = out
        self._given = arguments
        self._carry = carry
        self._defaults: dict[str, str] = {}  # ARGs before the first FROM
        self._stages: dict[str, Stage] = {}
        self._now: Stage | None = None

    def run(self, target: str | None) -> Stage:
        """Carry out the steps up to ``target`` (or all of them) and return its stage."""
        for name, rest in self._steps:
            if name == "FROM" and self._now is not None and target in self._stages:
                break
            print(f"--> {name} {rest}", flush=True)
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise CannotRehearse(f"{name}: unknown instruction")
            step(rest)
        stage = self._stages[target] if target else self._stage
        stage.keep()
        return stage

    @property
    def _stage(self) -> Stage:
        if self._now is None:
            raise CannotRehearse("an instruction before FROM")
        return self._now

    def _fill(self, text: str) -> str:
        known = {**self._defaults, **self._given}
        if self._now is not None:
            known = {**self._now.arguments, **self._now.variables}
        return re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], ""), text)

    def _arg(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        into = self._defaults if self._now is None else self._now.arguments
        into[name] = self._given.get(name, default or self._defaults.get(name, ""))

    def _from(self, rest: str) -> None:
        self._now = None
        image, _, name = self._fill(rest).partition(" AS ")
        root = self._out / (name or "final")
        if root.exists():
            raise CannotRehearse(f"{root} already exists")
        print(f"    {image}: a clean {SUITE}", flush=True)
        subprocess.run(["cp", "--archive", str(self._base()), str(root)], check=True)  # devices stay devices
        for path in (Path("/etc/resolv.conf"), *self._carry):
            (root / path.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.relative_to("/"))
        self._now = self._stages[name or "final"] = Stage(root=root)

    def _base(self) -> Path:
        base = self._out / "base"
        if not base.exists():
            command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(base)]
            subprocess.run(command, check=True)
        return base

    def _env(self, rest: str) -> None:
        for name, value in re.findall(r"(\w+)=(\S+)", rest):
            self._stage.variables[name] = self._fill(value)

    def _workdir(self, rest: str) -> None:
        self._stage.folder = rest
        (self._stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _run(self, rest: str) -> None:
        if rest.startswith("--"):
            raise CannotRehearse("RUN with mounts is not supported")
        extra = {**self._stage.arguments, **{name: os.environ[name] for name in os.environ if name.startswith("PIP_")}}
        subprocess.run(self._stage.command(["sh", "-c", rest], extra=extra, user=self._stage.user), check=True)

    def _copy(self, rest: str) -> None:
        *sources, into = rest.split()
        origin = ROOT
        if sources[0].startswith("--from="):
            origin = self._stages[sources.pop(0).removeprefix("--from=")].root
        target = self._stage.root / os.path.join(self._stage.folder, into).lstrip("/")
        for source in sources:
            found = sorted(origin.glob(source.lstrip("/")))
            if not found:
                raise CannotRehearse(f"COPY {source}: no such file")
            for path in found:
                _copy(path, target / path.name if into.endswith("/") else target, context=origin == ROOT)

    def _user(self, rest: str) -> None:
        self._stage.user = rest

    def _entrypoint(self, rest: str) -> None:
        self._stage.entrypoint = json.loads(rest)

    def _healthcheck(self, rest: str) -> None:
        self._stage.health = json.loads(rest.partition("CMD ")[2])

    def _nothing(self, rest: str) -> None:
        """Do nothing: the instruction only describes the image."""

    _expose = _volume = _stopsignal = _nothing


def _copy(path: Path, target: Path, *, context: bool) -> None:
    if context and not _admitted(path.relative_to(ROOT)):
        raise CannotRehearse(f"COPY {path.relative_to(ROOT)}: excluded by .dockerignore")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        leave = shutil.ignore_patterns("__pycache__") if context else None
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True, ignore=leave)
    else:
        shutil.copy(path, target)


def _admitted(path: Path) -> bool:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line[1:] for line in lines if line.startswith("!")]
    return any(fnmatch.fnmatch(str(part), pattern) for pattern in patterns for part in (path, *path.parents))


def start(stage: Stage, variables: list[str], bind: list[str], flags: list[str]) -> int:
    """Run the service in the foreground, as process 1 of a new process namespace, and return its exit status.

    SIGTERM and SIGINT are passed on to the service.
    """
    extra = dict(item.split("=", 1) for item in variables)
    words = stage.command([*stage.entrypoint, *flags], extra=extra, user=stage.user, bind=tuple(bind))
    process = subprocess.Popen(words)

    def pass_on(number: int, _: object) -> None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return process.wait()


def health(stage: Stage) -> int:
    """Run the stage's HEALTHCHECK and return its exit status."""
    return subprocess.run(stage.command(stage.health, extra={}, user=stage.user), check=False).returncode


def main() -> int:
    """Carry out a command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="rehearse", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build")
    build.add_argument("dockerfile", type=Path)
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--target")
    build.add_argument("--arg", action="append", default=[])
    build.add_argument("--carry", action="append", default=[], type=Path)
    run = commands.add_parser("start")
    run.add_argument("root", type=Path)
    run.add_argument("-e", dest="variables", action="append", default=[])
    run.add_argument("--bind", action="append", default=[])
    run.add_argument("flags", nargs="*")
    commands.add_parser("health").add_argument("root", type=Path)
    asked = parser.parse_args()
    if asked.command == "build":
        asked.out.mkdir(parents=True, exist_ok=True)
        arguments = dict(item.split("=", 1) for item in asked.arg)
        made = Build(asked.dockerfile, asked.out.resolve(), arguments, asked.carry).run(asked.target)
        print(f"built: {made.root}")
        return 0
    stage = Stage.load(asked.root.resolve())
    return health(stage) if asked.command == "health" else start(stage, asked.variables, asked.bind, asked.flags)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (CannotRehearse, subprocess.CalledProcessError) as error:
        print(f"rehearse: {error}", file=sys.stderr)
        sys.exit(1)

"""What must and must not be where in the tree."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

from tests.architecture.source_tree import (
    GENERATED,
    PACKAGES,
    ROOT,
    imported_modules,
    parse,
    python_files,
)

HEAVY = {"vllm", "torch", "transformers"}
VLLM_ROOM = ROOT / "executor_svc" / "engine" / "vllm"


def test_sage_stays_a_namespace_that_other_packages_can_share() -> None:
    assert (GENERATED / "sage" / "controlplane" / "v1").is_dir()
    assert not (GENERATED / "sage" / "__init__.py").exists()
    assert not (GENERATED / "sage" / "controlplane" / "__init__.py").exists()


def test_every_room_has_a_readme() -> None:
    assert lacking("README.md", {path.parent for path in python_files(*PACKAGES)}) == []


def test_the_readme_of_the_tests_names_every_room() -> None:
    rooms = {path.relative_to(ROOT).parts[1] for path in (ROOT / "tests").glob("*/**/*.py")}
    readme = (ROOT / "tests" / "README.md").read_text()
    assert {room for room in rooms if f"`{room}/`" not in readme} == set()


def test_every_package_has_an_init_file() -> None:
    """Without one, an editable install and an installed wheel would see different packages."""
    assert lacking("__init__.py", {path.parent for path in python_files(*PACKAGES)}) == []


def test_one_room_imports_vllm() -> None:
    importers = {
        path
        for path in python_files(*PACKAGES)
        for _, module in imported_modules(parse(path))
        if module.partition(".")[0] in HEAVY
    }
    assert importers
    assert {path for path in importers if not path.is_relative_to(VLLM_ROOM)} == set()


def test_vllm_is_not_imported_by_importing_that_room() -> None:
    """`--help`, a clear error without vLLM and the fast tests all import the room, and must not need vLLM."""
    imports = [found for path in python_files(VLLM_ROOM) for found in top_level_imports(path)]
    assert [found for found in imports if found[1].partition(".")[0] in HEAVY] == []


def test_the_port_to_an_engine_imports_nothing_of_ours_but_the_kinds_of_media() -> None:
    """Both sides of the port may then import it: what names the kinds imports nothing of ours itself."""
    room = ROOT / "executor_svc" / "runtime" / "engine_port"
    imports = {module for path in python_files(room) for _, module in imported_modules(parse(path))}
    ours = {package.name for package in PACKAGES} | {"sage"}
    found = {module for module in imports if module.partition(".")[0] in ours}
    port = "executor_svc.runtime.engine_port."
    assert any(module.startswith(port) for module in found)
    assert {module.rpartition(".")[0] for module in found if not module.startswith(port)} == {"sage_media.kinds"}


def test_what_is_below_tests_vllm_and_nothing_else_is_marked_vllm() -> None:
    """The fast tests leave the mark out, `make test-vllm` runs the room: what differs would run twice or nowhere."""
    files = [path for path in python_files(ROOT / "tests") if path.name.startswith("test_")]
    marked = {path for path in files if path.parent != Path(__file__).parent and "mark.vllm" in path.read_text()}
    assert marked == {path for path in files if path.is_relative_to(ROOT / "tests" / "vllm")}


def test_every_room_with_tests_is_run_by_the_makefile() -> None:
    rooms = {path.relative_to(ROOT).parts[1] for path in (ROOT / "tests").rglob("test_*.py")}
    assert {room for room in rooms if f" tests/{room}" not in (ROOT / "Makefile").read_text()} == set()


def test_the_repository_holds_no_state_of_a_process() -> None:
    """A state directory has the adoption key, which is a secret, and a journal."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    state = {"adoption-key", "epoch", "instances.json", "journal.db", "journal.db.lock"}
    assert [path for path in listed if path.rpartition("/")[2] in state] == []


def lacking(name: str, folders: set[Path]) -> list[str]:
    return [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / name).is_file()]


def top_level_imports(path: Path) -> list[tuple[int, str]]:
    return [found for statement in parse(path).body for found in _imports_run_on_import(statement)]


def _imports_run_on_import(statement: ast.stmt) -> list[tuple[int, str]]:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Try | ast.With):
        return imported_modules(statement)
    return []  # functions run later; `if TYPE_CHECKING:` never

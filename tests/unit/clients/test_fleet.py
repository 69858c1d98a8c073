"""The parts of a fleet that need no process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sage_local.fleet import status_report
from sage_local.fleet.command_lines import (
    executor_processes,
    gateway_process,
    scheduler_process,
    served_name_of,
    standby_processes,
)
from sage_local.fleet.devices import core_shares, gpu_shares
from sage_local.fleet.ports import free_address, why_not_free
from sage_local.fleet.progress import ProgressLines
from sage_local.fleet.spec import Engine, FleetSpec
from sage_local.fleet.state_dir import AlreadyRunning, StateDir
from sage_local.fleet.status import FleetPhase, FleetStatus, InstanceProgress, ProcessStatus
from tests.unit.clients.fleet_snapshots import instance


def flag(command: tuple[str, ...], name: str) -> str | None:
    return command[command.index(name) + 1] if name in command else None


@pytest.mark.parametrize(
    ("executors", "cores", "named"),
    [
        (2, [0, 1], ["0", "1"]),
        (2, [0, 1, 2, 3], ["0,1", "2,3"]),
        (2, [2, 5, 9], ["2", "5,9"]),
        (1, [0, 1], ["0,1"]),
        (3, [0, 1, 2, 3, 4], ["0", "1,2", "3,4"]),
    ],
)
def test_cores_are_split_evenly_and_never_shared(executors: int, cores: list[int], named: list[str]) -> None:
    shares = core_shares(executors, cores)

    assert [flag(share.arguments, "--engine.vllm.cpu-cores") for share in shares] == named
    assert [share.cores for share in shares] == named
    assert [share.warning for share in shares] == [""] * executors


def test_too_few_cores_are_shared_and_said_so() -> None:
    shares = core_shares(3, [0, 1])

    assert {flag(share.arguments, "--engine.vllm.cpu-cores") for share in shares} == {"0", "1"}
    assert all("3 executors" in share.warning for share in shares)


def test_each_executor_gets_a_gpu() -> None:
    shares = gpu_shares(2, ["0", "1", "2"])

    assert [share.environment for share in shares] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert [share.arguments for share in shares] == [(), ()]


def test_too_few_gpus_are_shared_with_their_memory_split() -> None:
    shares = gpu_shares(3, ["GPU-a", "GPU-b"])

    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares] == ["GPU-a", "GPU-b", "GPU-a"]
    memory = [flag(share.arguments, "--engine.vllm.gpu-memory-utilization") for share in shares]
    assert memory == ["0.42", None, "0.42"]
    assert "2 executors share GPU GPU-a" in shares[0].warning


def test_an_executors_command_says_all_it_must() -> None:
    spec = FleetSpec(engine="simulated", model="sim", address="127.0.0.1:7", max_running=4, prices=(1.0,))
    first, second = executor_processes(spec)

    assert flag(first.command, "--scheduler") == "127.0.0.1:7"
    assert flag(first.command, "--engine.simulated.max-running") == "4"
    assert [flag(each.command, "--price-per-hour") for each in (first, second)] == ["1", "0"]
    assert [flag(each.command, "--instance-id") for each in (first, second)] == ["executor-1", "executor-2"]


def test_a_simulated_engine_is_bound_to_nothing() -> None:
    command = executor_processes(FleetSpec(engine="simulated"))[0].command

    assert not any(part.startswith("--engine.vllm") for part in command)


def test_the_tiny_model_runs_in_full_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_local.fleet.devices.visible_gpus", list)
    tiny, other = tmp_path / "tiny", tmp_path / "other"
    tiny.mkdir()
    (tiny / "tiny_model.json").touch()
    other.mkdir()

    assert flag(executor_processes(FleetSpec(model=str(tiny)))[0].command, "--engine.vllm.dtype") == "float32"
    assert flag(executor_processes(FleetSpec(model=str(other)))[0].command, "--engine.vllm.dtype") is None


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
def test_a_fleet_with_roles_separates_prefill_from_decode(engine: Engine) -> None:
    spec = FleetSpec(engine=engine, executors=4, roles=("prefilling", "decoding", "embedding"))
    commands = [each.command for each in executor_processes(spec)]

    assert [flag(command, "--role") for command in commands] == ["prefilling", "decoding", "embedding", "general"]
    connectors = [flag(command, f"--engine.{engine}.kv-transfer.connector") for command in commands]
    assert connectors == ["NixlConnector", "NixlConnector", None, "NixlConnector"]
    assert "--pd-separation.enabled" in scheduler_process(spec).command


def test_a_fleet_without_roles_for_it_does_not() -> None:
    spec = FleetSpec(engine="simulated", roles=("general", "embedding"))

    assert not spec.splits
    assert "--pd-separation.enabled" not in scheduler_process(spec).command
    assert flag(executor_processes(spec)[0].command, "--engine.simulated.kv-transfer.connector") is None


def test_vectors_have_a_model_name_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "embedder").mkdir()

    def served(**fields: Any) -> list[tuple[str | None, str | None]]:
        spec = FleetSpec(model="org/name", roles=("general", "embedding"), **fields)
        commands = [each.command for each in executor_processes(spec)]
        return [(flag(each, "--model"), flag(each, "--engine.model.served-name")) for each in commands]

    assert served() == [("org/name", "org/name"), ("org/name", "org/name-embedding")]
    assert served(embedding_model="org/other")[1] == ("org/other", "org/other")
    assert served(embedding_model=str(tmp_path / "embedder"))[1] == (str(tmp_path / "embedder"), "embedder")


def test_a_model_is_served_under_a_name_that_is_not_a_path(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()

    assert served_name_of(FleetSpec(model=str(tmp_path / "my-model"))) == "my-model"
    assert served_name_of(FleetSpec(model="org/name")) == "org/name"
    assert served_name_of(FleetSpec(model="org/name", served_name="n")) == "n"


@pytest.mark.parametrize(("engine", "name"), [("vllm", "tiny-model"), ("simulated", "simulated")])
def test_our_own_model_has_its_name_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert served_name_of(FleetSpec(engine=engine)) == name


def test_the_http_gateway_listens_where_the_spec_says() -> None:
    process = gateway_process(FleetSpec(http="[::1]:8001", address="127.0.0.1:7", drain_timeout_s=3.0))
    assert process is not None
    flags = ("--address", "--host", "--port", "--grace-s")
    assert [flag(process.command, name) for name in flags] == ["127.0.0.1:7", "::1", "8001", "3"]
    assert gateway_process(FleetSpec()) is None


def test_a_clients_variable_does_not_reach_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_SCHEDULER_ADDRESS", "x:1")
    monkeypatch.setenv("SAGE_SCHEDULER_POLICY", "fifo")

    environment = scheduler_process(FleetSpec()).environment
    assert "SAGE_SCHEDULER_ADDRESS" not in environment
    assert environment["SAGE_SCHEDULER_POLICY"] == "fifo"


def test_a_spec_survives_its_file() -> None:
    spec = FleetSpec(executors=3, prices=(1.0, 2.5), max_running=4, executor_arguments=("--a=b",))

    assert FleetSpec.from_json(spec.to_json()) == spec


def test_a_free_address_is_free_and_a_wrong_one_is_said_to_be() -> None:
    assert why_not_free(free_address()) == ""
    assert why_not_free("127.0.0.1:x") != ""
    assert why_not_free("192.0.2.1:1") != ""


def test_a_directory_is_held_by_one(tmp_path: Path) -> None:
    state = StateDir(path=tmp_path / "new")
    assert not state.is_held()
    with state.held():
        assert state.is_held()
        with pytest.raises(AlreadyRunning, match="new"), state.held(tries=1):
            pass
    assert not state.is_held()


def test_the_tail_of_a_log_is_of_the_latest_start(tmp_path: Path) -> None:
    state = StateDir(path=tmp_path)
    for text in ("old\n", "one\ntwo\nthree\n"):
        descriptor = state.open_log("p")
        os.write(descriptor, text.encode())
        os.close(descriptor)

    assert state.log_tail("p") == "one\ntwo\nthree"
    assert state.log_tail("p", lines=2) == "two\nthree"
    assert state.log_tail("nobody") == ""


def test_a_log_that_grew_too_large_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_local.fleet.state_dir.LOG_LIMIT_BYTES", 10)
    state = StateDir(path=tmp_path)
    for _ in range(3):
        os.close(state.open_log("p"))

    assert state.log("p").read_text().count("--- start") == 1
    assert state.log("p").with_suffix(".log.1").exists()


def status(
    phase: FleetPhase,
    *,
    restarts: int = 0,
    state: str = "loading",
    progress: float | None = None,
    message: str = "",
) -> FleetStatus:
    process = ProcessStatus(
        name="executor-1",
        state="running",
        pid=10 + restarts,
        restarts=restarts,
        last_exit=None,
        where="core 0",
        warning="",
    )
    instance = InstanceProgress(instance_id="executor-1", state=state, progress=progress, message=message)
    return FleetStatus(
        phase=phase,
        reason="",
        culprit="",
        address="a:1",
        supervisor_pid=1,
        processes=(process,),
        instances=(instance,),
    )


def test_a_status_survives_its_file() -> None:
    said = status(FleetPhase.STARTING, progress=0.5)

    assert FleetStatus.from_json(said.to_json()) == said


def test_each_change_is_told_once() -> None:
    told: list[str] = []
    lines = ProgressLines(told.append)
    for progress in (0.11, 0.12, 0.55):
        lines.show(status(FleetPhase.STARTING, progress=progress))
    lines.show(status(FleetPhase.READY, state="ready"))  # the first status that says so
    lines.show(status(FleetPhase.READY, state="ready", restarts=1))

    assert told == [
        "executor-1: process 10 on core 0",
        "executor-1: loading 11%",
        "executor-1: loading 55%",
        "executor-1: ready",
        "executor-1: process 11 on core 0, start number 2",
    ]


@pytest.mark.parametrize(
    ("state", "progress", "message", "words"),
    [
        ("loading", None, "loading tiny-model", "loading tiny-model"),
        ("loading", 0.4, "loading tiny-model", "loading tiny-model 40%"),
        ("downloading", 0.4, "3 of 7 files", "downloading 40%: 3 of 7 files"),
        ("warming", None, "", "warming"),
        ("ready", 1.0, "its engine is ready", "ready"),
        ("failed", None, "no such model", "failed: no such model"),
    ],
)
def test_a_step_of_a_start_is_told_without_repetition(
    state: str, progress: float | None, message: str, words: str
) -> None:
    told: list[str] = []
    ProgressLines(told.append).show(status(FleetPhase.STARTING, state=state, progress=progress, message=message))

    assert told[-1] == f"executor-1: {words}"


@pytest.mark.parametrize(
    ("roles", "forms_pair"),
    [
        ((), False),
        (("prefilling", "decoding"), True),
        (("hybrid", "hybrid"), True),
        (("hybrid", "general"), False),
        (("prefilling", "general"), False),
        (("hybrid", "decoding"), True),
    ],
)
def test_a_pair_needs_an_executor_for_each_leg(roles: tuple[str, ...], forms_pair: bool) -> None:
    assert FleetSpec(roles=roles).forms_pair == forms_pair


def test_a_standby_is_a_second_scheduler_on_the_next_port_that_shares_a_database(tmp_path: Path) -> None:
    spec = FleetSpec(engine="simulated", standby=True, address="127.0.0.1:6000")
    database, first, second = standby_processes(spec, tmp_path / "postgres")
    assert (database.name, first.name, second.name) == ("postgres", "scheduler", "standby")
    assert "127.0.0.1:6000" in first.command
    assert "127.0.0.1:6001" in second.command
    shared = [each.command[each.command.index("--journal.url") + 1] for each in (first, second)]
    assert shared[0] == shared[1]
    for executor in executor_processes(spec):
        assert executor.command[executor.command.index("--scheduler") + 1] == "127.0.0.1:6000,127.0.0.1:6001"


def test_a_fleet_with_a_standby_is_ready_once_its_executors_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = status(FleetPhase.READY, progress=1.0)
    [process] = one.processes
    names = ("postgres", "scheduler", "standby", "executor-1", "gateway")
    state = StateDir(path=tmp_path)
    state.path.mkdir(exist_ok=True)
    state.write_status(replace(one, processes=tuple(replace(process, name=name) for name in names)))
    monkeypatch.setattr(status_report, "_instances", lambda _: [instance("executor-1")])
    with state.held():
        assert status_report.report_status(state).exit_status == status_report.RUNNING


def test_the_log_of_a_start_that_wrote_nothing_shows_the_one_before(tmp_path: Path) -> None:
    state = StateDir(path=tmp_path)
    first = state.open_log("p")
    os.write(first, b"why it ended\n")
    os.close(first)
    os.close(state.open_log("p"))
    assert state.log_tail("p") == "why it ended"

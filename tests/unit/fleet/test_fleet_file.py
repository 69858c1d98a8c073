"""``fleet.yaml``: what it says, and how what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_fleet.errors import SpecificationError
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.fleet_file import BYTES_LIMIT, parse_fleet, read_fleet


def group(fields: str) -> str:
    return f"groups: {{chat: {{model: m, {fields}}}}}"


def test_a_group_needs_a_model_and_nothing_else() -> None:
    fleet = parse_fleet("groups: {chat: {model: org/name}}")
    assert (fleet.place, fleet.scheduler.address, fleet.gateway) == ("local", "127.0.0.1:50051", None)
    chat = fleet.groups["chat"]
    assert (chat.least, chat.most, chat.is_scaled, chat.name_in_requests) == (1, 1, False, "org/name")


def test_a_group_has_a_fixed_number_of_executors_or_bounds() -> None:
    fixed = parse_fleet(group("count: 3")).groups["chat"]
    assert (fixed.least, fixed.most, fixed.bounded(9), fixed.bounded(0)) == (3, 3, 3, 3)
    scaled = parse_fleet(group("min: 0, max: 4")).groups["chat"]
    assert (scaled.least, scaled.most, scaled.bounded(9), scaled.bounded(2)) == (0, 4, 4, 2)
    assert scaled.is_scaled


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("groups: {}", "groups: "),
        ("name: sage", "groups: is required"),
        ("grups: {}\ngroups: {a: {model: m}}", "grups: unknown key"),
        ("groups: {chat: {}}", "groups.chat.model: is required"),
        (group("modle: x"), "groups.chat.modle: unknown key"),
        (group("count: -1"), "groups.chat.count: "),
        (group("count: many"), "groups.chat.count: "),
        (group("count: 1, min: 0, max: 2"), "groups.chat: count stands alone"),
        (group("min: 2"), "groups.chat: min and max go together"),
        (group("min: 3, max: 2"), "groups.chat: min is 3, more than max, which is 2"),
        (group("gpus: 2"), "groups.chat: gpus is 2: say by tensor_parallel"),
        (group("tensor_parallel: 4, gpus: 2"), "groups.chat: gpus is 2, but tensor_parallel x pipeline_parallel is 4"),
        (group("role: writing"), "groups.chat.role: "),
        (
            group("device_group: gpu0, gpus: 1, count: 2"),
            "groups.chat: device_group: a group that shares",
        ),
        (
            group("device_group: gpu0, gpus: 1, min: 0, max: 1"),
            "groups.chat: device_group: a group that shares",
        ),
        (group("keep_asleep: 1, gpus: 1"), "groups.chat: keep_asleep: needs min and max"),
        (group("keep_asleep: 1, min: 0, max: 2"), "groups.chat: keep_asleep: vLLM sleeps on GPUs only"),
        (group("device_group: gpu0"), "groups.chat: device_group: vLLM sleeps on GPUs only"),
        (group("device_group: gpu0, gpus: 1, role: hybrid"), "groups.chat: device_group: executors of the role hybrid"),
        (group("device_group: GPU 0, gpus: 1"), "groups.chat.device_group"),
        (
            "groups: {a: {model: m, gpus: 1, device_group: g},\n"
            " b: {model: n, gpus: 2, tensor_parallel: 2, device_group: g}}",
            "groups.b.gpus is 2: others of g have 1",
        ),
        (group("price_per_hour: .inf"), "groups.chat.price_per_hour: "),
        ("groups: {Chat_1: {model: m}}", "groups.Chat_1.[key]: 'Chat_1' is not a name: small letters, digits"),
        ("scheduler: {address: here}\ngroups: {a: {model: m}}", "scheduler.address: 'here' is not host:port"),
        (
            "scheduler: {address: 10.0.0.5:1}\ngroups: {a: {model: m}}",
            "10.0.0.5:1 is not loopback: give tls, or insecure",
        ),
        ("scheduler: {tls: {ca: a}}\ngroups: {a: {model: m}}", "scheduler.tls.certificate: is required"),
        (
            "scheduler: {access: {keys_file: k, executor_token_file: e, operator_token_file: o}}\n"
            "groups: {a: {model: m}}",
            "scheduler: access without tls",
        ),
        ("gateway: {}\ngroups: {a: {model: m}}", "gateway.address: is required"),
        ("place: moon\ngroups: {a: {model: m}}", "place: "),
        ("ray: {gpu: 1}\ngroups: {a: {model: m}}", "ray.gpu: unknown key"),
        ("kubernetes: {namespace: A}\ngroups: {a: {model: m}}", "kubernetes.namespace: "),
        ("groups: {a: {model: m}, a: {model: n}}", "not YAML: line 1: a stands twice"),
        ("a: &x 1\nb: *x", "not YAML: aliases (*name) are not taken"),
        ("{? {a: b} : c}", "not YAML: line 1: a key is no name"),
        ("[a]", "expected fields"),
        ("a: [", "not YAML: line 1, column 5: "),
        ("!!python/object:os.system {}", "not YAML: "),
    ],
)
def test_what_is_wrong_is_named(content: str, said: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_fleet(content)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match=r"cannot read .*none\.yaml: No such file"):
        read_fleet(tmp_path / "none.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("groups: {}")
    with pytest.raises(SpecificationError, match=r"wrong\.yaml: groups"):
        read_fleet(wrong)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (BYTES_LIMIT + 1))
    with pytest.raises(SpecificationError, match="more than 1048576 bytes"):
        read_fleet(large)


def test_a_fleet_comes_back_from_its_plain_values() -> None:
    fleet = parse_fleet(group("min: 1, max: 2, engine_arguments: {engine_args: {max_logprobs: 5}}"))
    assert Fleet.model_validate(fleet.model_dump(mode="json")) == fleet


def test_it_splits_where_a_role_takes_part() -> None:
    assert not parse_fleet(group("role: embedding")).splits
    assert parse_fleet(group("role: decoding")).splits

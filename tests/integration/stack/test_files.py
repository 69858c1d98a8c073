"""What the dashboards and the collector's configuration must hold, read from the files."""

from __future__ import annotations

import re

from sage_telemetry.catalogue import ATTRIBUTES, EXECUTOR, SCHEDULER
from tests.integration.stack.shipped import DASHBOARDS, DOCKER, dashboard, panels, read_yaml

COLLECTOR = read_yaml(DOCKER / "otel-collector" / "config.yaml")


def test_there_is_a_dashboard_for_each_of_four_subjects() -> None:
    assert [path.stem for path in DASHBOARDS] == ["decisions", "fleet", "latency", "pd"]
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == 4


def test_every_panel_has_a_unit_and_a_description() -> None:
    for path in DASHBOARDS:
        for panel in panels(path):
            assert panel["fieldConfig"]["defaults"]["unit"], f"{path.stem}: {panel['title']}"
            assert panel["description"].endswith("."), f"{path.stem}: {panel['title']}"


def test_a_stat_of_a_share_says_where_there_was_no_traffic() -> None:
    shares = [p for path in DASHBOARDS for p in panels(path) if p["type"] == "stat" and "/" in p["targets"][0]["expr"]]
    assert [panel["title"] for panel in shares] == ["Attainment", "Fell back, of those to be split"]
    for panel in shares:
        defaults = panel["fieldConfig"]["defaults"]
        [mapping] = defaults["mappings"]
        assert mapping["options"]["match"] == "null+nan"
        assert defaults["noValue"] == mapping["options"]["result"]["text"] == "no traffic"


def test_panels_lie_beside_each_other() -> None:
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in dashboard(path)["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
            assert max(x for x, _ in cells) < 24, f"{path.stem}: {panel['title']}"
            assert not cells & taken, f"{path.stem}: {panel['title']}"
            taken |= cells


def test_dashboards_ask_the_data_source_that_is_provisioned() -> None:
    sources = read_yaml(DOCKER / "grafana" / "provisioning" / "datasources" / "sage.yaml")["datasources"]
    known = {source["uid"]: source["type"] for source in sources}
    for path in DASHBOARDS:
        for panel in panels(path):
            for each in (panel, *panel["targets"]):
                assert known[each["datasource"]["uid"]] == each["datasource"]["type"]


def test_grafana_finds_the_dashboards_where_compose_puts_them() -> None:
    [provider] = read_yaml(DOCKER / "grafana" / "provisioning" / "dashboards" / "sage.yaml")["providers"]
    grafana = read_yaml(DOCKER / "compose.yaml")["services"]["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix(provider["options"]["path"] + "/") in [path.name for path in DASHBOARDS]


def test_the_collectors_pipelines_name_what_is_defined() -> None:
    service = COLLECTOR["service"]
    assert set(service["extensions"]) <= COLLECTOR["extensions"].keys()
    for pipeline in service["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline.get(kind, [])) <= COLLECTOR[kind].keys()


def test_what_goes_to_cloudwatch_stands_on_the_collectors_configuration() -> None:
    added = read_yaml(DOCKER / "otel-collector" / "cloudwatch.yaml")
    [(name, pipeline)] = added["service"]["pipelines"].items()
    replaced = COLLECTOR["service"]["pipelines"][name]
    assert {**pipeline, "exporters": []} == {**replaced, "exporters": []}
    assert set(pipeline["exporters"]) == added["exporters"].keys()
    [declared] = added["exporters"]["awsemf"]["metric_declarations"]
    [selector] = declared["metric_name_selectors"]
    assert all(re.match(selector, each.name) for each in (*SCHEDULER, *EXECUTOR))
    compose = read_yaml(DOCKER / "compose.cloudwatch.yaml")["services"]["otel-collector"]
    asked = re.findall(r"\$\{env:(\w+)\}", (DOCKER / "otel-collector" / "cloudwatch.yaml").read_text())
    assert set(asked) <= compose["environment"].keys()
    assert [path.rpartition("/")[2] for path in compose["command"]] == ["config.yaml", "cloudwatch.yaml"]


def test_the_collector_keeps_what_failed_missed_a_target_or_was_slow_and_a_share_of_the_rest() -> None:
    policies = {each["type"]: each for each in COLLECTOR["processors"]["tail_sampling"]["policies"]}
    assert policies.keys() == {"status_code", "boolean_attribute", "latency", "probabilistic"}
    assert policies["status_code"]["status_code"] == {"status_codes": ["ERROR"]}
    assert policies["boolean_attribute"]["boolean_attribute"] == {"key": "sage.slo.met", "value": False}
    assert "sage.slo.met" in ATTRIBUTES


def test_the_collector_is_given_the_variables_it_asks_for() -> None:
    text = (DOCKER / "otel-collector" / "config.yaml").read_text()
    given = read_yaml(DOCKER / "compose.yaml")["services"]["otel-collector"]["environment"]
    assert set(re.findall(r"\$\{env:(\w+)\}", text)) == given.keys()


def test_traces_go_where_jaeger_is() -> None:
    services = read_yaml(DOCKER / "compose.yaml")["services"]
    endpoint = COLLECTOR["exporters"]["otlp_grpc/jaeger"]["endpoint"]
    assert endpoint.partition(":")[0] in services

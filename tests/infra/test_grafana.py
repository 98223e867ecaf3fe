"""Dashboard, alerts and scrape configuration ask only for what the code exports, and are whole.

The names are those of a real scrape, so renaming a metric in the code fails here.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from s2vc_ray import counters
from s2vc_ray.job_meter import JobMeter
from s2vc_ray.prometheus import MetricsServer
from tests.job_events import tell_job

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "infra/grafana/s2vc-job.json").read_text())
PROMETHEUS = ROOT / "infra/prometheus"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
SCRAPE = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
ADDED_BY_PROMETHEUS = {"instance", "job"}
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}
"""What Grafana puts into a query before it asks it."""

Labels = dict[str, set[str]]


def counted_in_the_code() -> Labels:
    """Names and labels of every ``count("name", label=...)`` in the package."""
    found: Labels = {}
    for path in (ROOT / "s2vc_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name("count") | ast.Attribute(value=ast.Name("counters"), attr="count"),
                    args=[ast.Constant(value=str(name)), *_],
                    keywords=labels,
                ):
                    found.setdefault(name, set()).update(label.arg for label in labels if label.arg)
    return found


@pytest.fixture(scope="module")
def exported() -> Labels:
    """Every metric that a job can export, with its labels, by a scrape of one in which everything happened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "_counts", Counter())
        for name, labels in counted_in_the_code().items():
            counters.count(name, 1, **dict.fromkeys(labels, "x"))
        meter = JobMeter()
        tell_job(meter)
        with (
            MetricsServer(meter, 0) as server,
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer,
        ):
            families = list(text_string_to_metric_families(answer.read().decode()))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def parsed(query: str) -> Any:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return promql_parser.parse(query)


def nodes(node: Any) -> Iterator[Any]:
    """A query's nodes, by what children PromQL's have."""
    yield node
    for child in ("lhs", "rhs", "expr", "vector_selector"):
        if getattr(node, child, None) is not None:
            yield from nodes(getattr(node, child))
    for argument in getattr(node, "args", None) or ():
        yield from nodes(argument)


def unknown(query: str, exported: Labels) -> set[str]:
    """What ``query`` asks for that the code does not export: metrics, and labels that its metrics lack."""
    tree = list(nodes(parsed(query)))
    selectors = [node for node in tree if isinstance(node, promql_parser.VectorSelector)]
    wrong = {str(selector.name) for selector in selectors if selector.name not in exported}
    for selector in selectors:
        asked = {matcher.name for matcher in selector.matchers.matchers}
        wrong |= asked - exported.get(selector.name, asked) - ADDED_BY_PROMETHEUS
    there = ADDED_BY_PROMETHEUS.union(*(exported.get(selector.name, set()) for selector in selectors))
    for node in tree:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            wrong |= set(node.modifier.labels) - there
    return wrong


def selectors_of(query: str) -> list[Any]:
    return [node for node in nodes(parsed(query)) if isinstance(node, promql_parser.VectorSelector)]


@pytest.mark.parametrize("query", dashboard_queries())
def test_dashboard_queries_ask_for_what_is_exported(query: str, exported: Labels) -> None:
    assert selectors_of(query)
    assert unknown(query, exported) == set()
    for selector in selectors_of(query):
        assert "instance" in {matcher.name for matcher in selector.matchers.matchers}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_alerts_ask_for_what_is_exported(rule: dict[str, Any], exported: Labels) -> None:
    assert selectors_of(rule["expr"])
    assert unknown(rule["expr"], exported) == set()


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("sum(rate(s2vc_frames_totl[5m]))", {"s2vc_frames_totl"}),
        ("s2vc_frames", {"s2vc_frames"}),
        ('rate(s2vc_gops_total{why="coded"}[5m]) > -max_over_time(s2vc_nope[1h:5m])', {"why", "s2vc_nope"}),
        ("sum by (stages) (s2vc_stage_depth)", {"stages"}),
        ('sum by (reason, instance) (increase(s2vc_s3_retries_total{job="s2vc"}[5m]))', set()),
    ],
)
def test_the_check_finds_what_is_wrong(query: str, wrong: set[str], exported: Labels) -> None:
    assert unknown(query, exported) == wrong


def test_legends_name_labels_that_survive_the_query(exported: Labels) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            tree = parsed(target["expr"])
            named = set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
            if isinstance(tree, promql_parser.AggregateExpr):
                kept = set(tree.modifier.labels) if tree.modifier else set()
            else:
                kept = ADDED_BY_PROMETHEUS.union(*(exported[s.name] for s in selectors_of(target["expr"])))
            assert named <= kept, panel["title"]


def test_the_dashboard_has_what_grafana_needs() -> None:
    assert DASHBOARD["title"]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert 36 <= DASHBOARD["schemaVersion"] <= 42
    assert set(DASHBOARD["time"]) == {"from", "to"}
    assert isinstance(DASHBOARD["templating"]["list"], list)
    assert "id" not in DASHBOARD  # a database's own number: importing one would overwrite another's dashboard
    assert "__inputs" not in DASHBOARD  # provisioning does not fill them in


def test_panels_are_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        assert panel["type"] in ("row", "stat", "timeseries")
        assert panel["title"]
        if panel["type"] == "row":
            assert panel["panels"] == []
            continue
        assert panel["description"].endswith(".")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["overrides"] == []
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_variable_is_declared(exported: Labels) -> None:
    declared = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used == set(declared)
    assert declared["datasource"]["type"] == "datasource"
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", declared["instance"]["query"]["query"])
    assert asked is not None
    assert asked[1] in exported
    assert asked[2] in exported[asked[1]] | ADDED_BY_PROMETHEUS


def test_alerts_are_whole_and_explained() -> None:
    explained = (ROOT / "docs/observability.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", explained, re.MULTILINE)}
    names = [rule["alert"] for rule in RULES]
    assert {"S2vcStalled", "S2vcRetryStorm", "S2vcFailureRate", "S2vcEncoderIdle", "S2vcDriverMemory"} <= set(
        names
    )
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor) == ("docs/observability.md", rule["alert"].lower())
        assert anchor in headings


def test_every_exported_metric_is_explained(exported: Labels) -> None:
    explained = (ROOT / "docs/observability.md").read_text()
    assert {name for name in exported if name not in explained} == set()
    mentioned = set(re.findall(r"`(s2vc_[a-z0-9_]+)`", explained))
    assert mentioned - set(exported) == set()


def test_prometheus_reads_the_alerts_and_scrapes_the_driver() -> None:
    assert [(PROMETHEUS / name).exists() for name in SCRAPE["rule_files"]] == [True]
    jobs = {job["job_name"]: job for job in SCRAPE["scrape_configs"]}
    (targets,) = jobs["s2vc"]["static_configs"]
    port = targets["targets"][0].rpartition(":")[2]
    assert f"--metrics-port {port}" in (ROOT / "docs/observability.md").read_text()


def test_prometheus_finds_pods_by_port_names_that_they_have() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus-kubernetes.yml").read_text())
    cluster = (ROOT / "infra/kuberay/base/raycluster.yaml").read_text()
    ports = set(re.findall(r"name: ([\w-]+), containerPort", cluster))
    asked = {job["job_name"]: job["relabel_configs"][0]["regex"] for job in config["scrape_configs"]}
    assert asked == {"s2vc": "job-metrics", "ray": "metrics"}
    assert set(asked.values()) <= ports
    assert config["rule_files"] == SCRAPE["rule_files"]


def test_each_alarm_has_a_case_in_which_it_rings_and_one_in_which_it_does_not() -> None:
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    checked = [check for case in cases for check in case["alert_rule_test"]]
    for rule in RULES:
        rings = {bool(check["exp_alerts"]) for check in checked if check["alertname"] == rule["alert"]}
        assert rings == {True, False}, rule["alert"]


# Not for prometheus-kubernetes.yml: distributions build the tool without discovery in Kubernetes.
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed")
@pytest.mark.parametrize(
    "arguments", [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]], ids=" ".join
)
def test_prometheus_own_tool_agrees(arguments: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

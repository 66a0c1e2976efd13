"""What is shipped for Prometheus and Grafana is well-formed, and alerts fire when they should."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from telemetry.metrics_catalogue import INSTRUMENTS
from tests.observability.monitoring import (
    ALERTS,
    DASHBOARD,
    PROVISIONED_FROM,
    ROOT,
    SHIPPED,
    alerts,
    metrics_in,
    needs_prometheus,
    panels,
    queries,
)

FOLDER = Path(__file__).parent


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", str(SHIPPED / "prometheus.yml")],
        ["check", "rules", "--lint-fatal", str(ALERTS)],
        ["test", "rules", str(FOLDER / "alerts_test.yml")],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_finds_nothing_wrong(arguments: list[str]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    fired = {
        rule["alertname"]
        for test in tests
        for rule in test["alert_rule_test"]
        if rule["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in alerts()}


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    headings = {
        line.removeprefix("### ").lower() for line in re.findall(r"^### \w+$", page, re.MULTILINE)
    }
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        name, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert name == "docs/metrics.md"
        assert anchor == rule["alert"].lower()
        assert anchor in headings


def test_what_is_asked_for_is_in_the_catalogue() -> None:
    known = {
        instrument.name + suffix
        for instrument in INSTRUMENTS
        for suffix in (("_bucket", "_count", "_sum") if instrument.kind == "histogram" else ("",))
    } | {"up"}
    for expression in (*queries().values(), *(rule["expr"] for rule in alerts())):
        assert metrics_in(expression) <= known, expression


def test_every_metric_is_on_the_dashboard() -> None:
    asked = {name for expression in queries().values() for name in metrics_in(expression)}
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert {instrument.name for instrument in INSTRUMENTS} <= shown


def test_panels_use_the_data_source_that_is_provisioned() -> None:
    [source] = yaml.safe_load(PROVISIONED_FROM.read_text())["datasources"]
    uids = {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert uids == {source["uid"]}
    found = json.loads(DASHBOARD.read_text())["panels"]
    ids = [panel["id"] for panel in found]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24

"""The configurations that docs/metrics.md shows for a Prometheus that is not ours."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tests.observability.monitoring import ALERTS, ROOT, alerts, needs_prometheus

PAGE = (ROOT / "docs" / "metrics.md").read_text()
LOCAL, KUBERNETES = (
    yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
)
ABSENT = next(rule["expr"] for rule in alerts() if rule["alert"] == "DespachoMetricsAbsent")
JOBS = {*re.findall(r'job="([\w-]+)"', ABSENT)}


def test_in_local_mode_each_service_is_asked_where_it_answers() -> None:
    served = dict(re.findall(r"\b([A-Z]+)_METRICS_ADDRESS=([\w.:]+)", PAGE))
    asked = {each["job_name"]: each["static_configs"] for each in LOCAL["scrape_configs"]}
    assert asked == {
        f"despacho-{service.lower()}": [{"targets": [address]}]
        for service, address in served.items()
    }
    assert asked.keys() == JOBS
    ports = {service: int(address.rpartition(":")[2]) for service, address in served.items()}
    # Those of more workers follow.
    assert max(ports, key=lambda service: ports[service]) == "WORKER"


@needs_prometheus
def test_prometheus_takes_that_of_local_mode(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    promtool("check", "config", written(tmp_path, LOCAL))


@needs_prometheus
def test_in_kubernetes_each_service_is_asked_where_it_answers(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    configuration = deepcopy(KUBERNETES)
    [scraped] = configuration["scrape_configs"]
    # What Prometheus would be told there; Debian's cannot ask, but does the rest by itself.
    assert scraped.pop("kubernetes_sd_configs")[0]["role"] == "pod"
    scraped["static_configs"] = [*ports("Running"), *ports("Failed")]
    path = written(tmp_path, configuration)
    promtool("check", "config", path)
    told = promtool("check", "service-discovery", "--timeout=3s", path, scraped["job_name"])
    kept = [labels for target in json.loads(told) if (labels := target["labels"])]
    found = sorted((labels["job"], labels["__address__"]) for labels in kept)
    assert found == sorted((job, f"{job}:9100") for job in JOBS)


def written(folder: Path, configuration: dict[str, Any]) -> Path:
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    return path


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ports(phase: str) -> Iterator[dict[str, Any]]:
    """Yield each port of each pod as Kubernetes tells Prometheus of it."""
    for path in (ROOT / "deploy" / "kubernetes").glob("*.yaml"):
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest["kind"] not in {"Deployment", "StatefulSet"}:
                continue
            template = manifest["spec"]["template"]
            labels = {
                f"__meta_kubernetes_pod_label_{re.sub(r'[^a-z0-9]', '_', name)}": value
                for name, value in template["metadata"]["labels"].items()
            }
            [container] = template["spec"]["containers"]
            for port in container["ports"]:
                yield {
                    "targets": [f"{manifest['metadata']['name']}:{port['containerPort']}"],
                    "labels": {
                        **labels,
                        "__meta_kubernetes_pod_container_port_name": port["name"],
                        "__meta_kubernetes_pod_phase": phase,
                    },
                }

"""The manifests of `deploy/kubernetes`: what can be known of them without a cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic_settings import BaseSettings

from deploy.local.configuration import GATEWAY_STOP_S, SERVER_STOP_S, WORKER_STOP_S
from dispatch.operation_store import SYNCED_BYTES
from gateway.settings import GatewaySettings
from server import health
from server.api_keys import parsed
from server.settings import ServerSettings
from tests.fuzz.decoder import BYTES_PER_PIXEL
from tests.redis_rights import documented, right_to, told_to_operators
from worker.app import DECODE_THREADS
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
EXAMPLE = "secrets.example.yaml"

KUBERNETES = ["1.29.0", "1.37.0"]
"""The oldest and the newest whose schemas there are."""

SETTINGS: dict[str, type[BaseSettings]] = {
    "server": ServerSettings,
    "worker": WorkerSettings,
    "gateway": GatewaySettings,
}
STOP_S = {"server": SERVER_STOP_S, "worker": WORKER_STOP_S, "gateway": GATEWAY_STOP_S}

FRONT_END_BYTES = 75 << 20
"""What a front-end takes between images."""

BYTES_PER_BYTE = 2.2
"""Memory of a front-end for each byte of the images that it holds; measured."""

BYTES_PER_BYTE_SYNCED = 4.0
"""And while it sends them as `synced` submissions."""

WORKER_BYTES = 750_000_000
"""What a worker with TensorFlow and the bundled model takes between images."""

AUTOSCALER_TOLERANCE = 1.1
"""How many times its target a measure must be before Kubernetes starts another pod."""

Manifest = dict[str, Any]


def manifests(*names: str) -> Iterator[Manifest]:
    """Yield what is in these files, or in all."""
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name != "kustomization.yaml" and (not names or path.name in names):
            yield from yaml.safe_load_all(path.read_text())


ALL = {f"{one['kind']}/{one['metadata']['name']}": one for one in manifests()}
SECRETS = {one["metadata"]["name"]: one["stringData"] for one in manifests(EXAMPLE)}
WORKLOADS = [one for one in ALL.values() if one["kind"] in {"Deployment", "StatefulSet"}]


def pod_of(workload: Manifest) -> Manifest:
    found: Manifest = workload["spec"]["template"]["spec"]
    return found


def container_of(component: str) -> Manifest:
    kind = "StatefulSet" if component == "redis" else "Deployment"
    [container] = pod_of(ALL[f"{kind}/despacho-{component}"])["containers"]
    return dict(container)


def environment_of(component: str) -> dict[str, str]:
    """Return what the container gets, secrets as the example has them."""
    found = {}
    for variable in container_of(component)["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            place = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = SECRETS[place["name"]][place["key"]]
    return found


def memory_of(component: str) -> int:
    """Return the most bytes that the container may take."""
    limit = container_of(component)["resources"]["limits"]["memory"]
    return int(limit.removesuffix("Gi")) << 30


def named(workload: Manifest) -> str:
    return str(workload["metadata"]["name"])


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", ALL)
def test_a_manifest_has_the_shape_that_kubernetes_wants(name: str, version: str) -> None:
    kubernetes_validate.validate(ALL[name], version, strict=True)


def test_kustomize_takes_all_but_the_secrets() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert {*kustomization["resources"]} == files - {EXAMPLE, "kustomization.yaml"}
    images = {image["name"] for image in kustomization["images"]}
    assert images == {container_of(component)["image"] for component in SETTINGS}


@pytest.mark.parametrize("component", SETTINGS)
def test_a_service_starts_with_these_settings(
    component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = environment_of(component)
    prefix = f"{component.upper()}_"
    known = {f"{prefix}{field}".upper() for field in SETTINGS[component].model_fields}
    assert environment.keys() - known <= {"REDIS_URL"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if component != "gateway":
        # As the image has it.
        monkeypatch.setenv("SERVER_ADDRESS", "0.0.0.0:50051")
    else:
        monkeypatch.setenv("GATEWAY_ADDRESS", "0.0.0.0:8080")
    SETTINGS[component]()


def test_the_server_is_probed_where_it_tells_its_health() -> None:
    server = container_of("server")
    port = int(environment_of("server")["SERVER_HEALTH_ADDRESS"].rpartition(":")[2])
    asked = {
        probe: server[probe]["grpc"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {each["port"] for each in asked.values()} == {port}
    assert asked["startupProbe"]["service"] == asked["livenessProbe"]["service"] == health.LIVENESS
    assert asked["readinessProbe"]["service"] == health.READINESS


def test_a_gateway_is_not_killed_because_all_its_threads_are_taken() -> None:
    gateway = container_of("gateway")
    # Who asks for a page waits for a thread.
    assert "httpGet" not in gateway["livenessProbe"]
    assert gateway["livenessProbe"]["tcpSocket"] == {"port": "http"}
    assert gateway["startupProbe"]["httpGet"] == {"port": "http", "path": "/healthz"}
    assert gateway["readinessProbe"]["httpGet"] == {"port": "http", "path": "/readyz"}


def test_a_worker_is_probed_at_the_file_that_it_makes() -> None:
    worker = container_of("worker")
    path = environment_of("worker")["WORKER_READY_FILE"]
    for probe in ("startupProbe", "readinessProbe"):
        assert worker[probe]["exec"]["command"] == ["test", "-e", path]
    assert "livenessProbe" not in worker


@pytest.mark.parametrize("component", STOP_S)
def test_pods_have_time_to_stop_by_themselves(component: str) -> None:
    hook = container_of(component).get("lifecycle", {}).get("preStop")
    pause_s = int(hook["exec"]["command"][1]) if hook else 0
    grace_s = pod_of(ALL[f"Deployment/despacho-{component}"])["terminationGracePeriodSeconds"]
    assert grace_s >= pause_s + STOP_S[component]


def test_a_front_end_has_memory_for_all_that_it_lets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_of("server").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SERVER_ADDRESS", "0.0.0.0:50051")
    settings = ServerSettings()
    assert settings.processes == 1
    assert memory_of("server") >= most_memory(settings)


def test_the_most_memory_of_a_front_end_is_that_of_the_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith("| front-end, each process |")]
    gib = most_memory(ServerSettings()) / (1 << 30)
    assert row.endswith(f": {gib:.1f} GiB |")


def most_memory(settings: ServerSettings) -> float:
    """Return what a front-end takes that has let in all that it may, bytes."""
    held = settings.max_in_flight_bytes + settings.max_receiving_bytes
    # The last of those that are sent together may be of any size.
    synced = SYNCED_BYTES + settings.max_image_bytes
    more = (BYTES_PER_BYTE_SYNCED - BYTES_PER_BYTE) * synced
    return FRONT_END_BYTES + BYTES_PER_BYTE * held + more


def test_a_worker_has_memory_for_the_largest_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_of("worker").items():
        monkeypatch.setenv(name, value)
    settings = WorkerSettings()
    threads = settings.decode_threads or DECODE_THREADS
    assert settings.processes == 1
    decoding = threads * BYTES_PER_PIXEL * settings.max_image_pixels
    assert memory_of("worker") >= WORKER_BYTES + decoding


def test_a_worker_with_too_much_to_do_gets_company(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_of("worker").items():
        monkeypatch.setenv(name, value)
    settings = WorkerSettings()
    # With one thread for decoding there is none, and the model's thread does it on one core.
    assert settings.decode_threads == 1
    requested = int(container_of("worker")["resources"]["requests"]["cpu"])
    [metric] = ALL["HorizontalPodAutoscaler/despacho-worker"]["spec"]["metrics"]
    target = metric["resource"]["target"]["averageUtilization"] / 100
    assert settings.processes > requested * target * AUTOSCALER_TOLERANCE


def test_a_service_reaches_the_pods_that_it_is_for() -> None:
    for service in (one for one in ALL.values() if one["kind"] == "Service"):
        selector = service["spec"]["selector"]
        [workload] = [
            one
            for one in WORKLOADS
            if selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        [container] = pod_of(workload)["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()


def test_only_who_has_to_reaches_a_port() -> None:
    reachable: dict[tuple[str, str], list[str]] = {}
    for workload in WORKLOADS:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        [policy] = [
            one["spec"]
            for one in ALL.values()
            if one["kind"] == "NetworkPolicy"
            and one["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        ]
        assert policy["policyTypes"] == ["Ingress"]
        [container] = pod_of(workload)["containers"]
        ports = {port["name"] for port in container["ports"]}
        for rule in policy["ingress"]:
            for port in rule["ports"]:
                assert port["port"] in ports
                reachable[named(workload), port["port"]] = peers_of(rule)
    assert reachable == {
        ("despacho-redis", "redis"): ["server", "worker"],
        ("despacho-server", "grpc"): [],
        ("despacho-server", "metrics"): ["monitoring"],
        ("despacho-gateway", "http"): [],
        ("despacho-gateway", "metrics"): ["monitoring"],
        ("despacho-worker", "metrics"): ["monitoring"],
    }


def peers_of(rule: Manifest) -> list[str]:
    """Return from which components or namespaces a rule lets in; none: from everywhere."""
    return [
        next(iter(peer.values()))["matchLabels"][label]
        for peer in rule.get("from", ())
        for label in ("app.kubernetes.io/component", "kubernetes.io/metadata.name")
        if label in next(iter(peer.values()))["matchLabels"]
    ]


def test_what_belongs_to_a_workload_names_it() -> None:
    for component in SETTINGS:
        budget = ALL[f"PodDisruptionBudget/despacho-{component}"]["spec"]["selector"]
        assert budget == ALL[f"Deployment/despacho-{component}"]["spec"]["selector"]
    target = ALL["HorizontalPodAutoscaler/despacho-worker"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in ALL
    stateful = ALL["StatefulSet/despacho-redis"]
    assert f"Service/{stateful['spec']['serviceName']}" in ALL
    for workload in WORKLOADS:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert workload["spec"]["selector"]["matchLabels"] == labels


def test_the_number_of_what_scales_by_itself_is_not_said_twice() -> None:
    autoscalers = [one for one in ALL.values() if one["kind"] == "HorizontalPodAutoscaler"]
    assert autoscalers
    for autoscaler in autoscalers:
        target = autoscaler["spec"]["scaleTargetRef"]
        assert "replicas" not in ALL[f"{target['kind']}/{target['name']}"]["spec"]


def test_all_that_is_mounted_is_there() -> None:
    for workload in WORKLOADS:
        pod = pod_of(workload)
        claims = workload["spec"].get("volumeClaimTemplates", ())
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        [container] = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == volumes | {named(claim) for claim in claims}
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                secret = SECRETS[volume["secret"]["secretName"]]
                assert {each["key"] for each in volume["secret"].get("items", ())} <= secret.keys()
            if "configMap" in volume:
                assert f"ConfigMap/{volume['configMap']['name']}" in ALL


def test_no_container_may_do_more_than_it_has_to() -> None:
    for workload in WORKLOADS:
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("component", SETTINGS)
def test_several_processes_have_a_place_for_their_figures(component: str) -> None:
    if "processes" not in SETTINGS[component].model_fields:
        return
    assert environment_of(component)[f"{component.upper()}_METRICS_ADDRESS"]
    mounted = {each["mountPath"]: each["name"] for each in container_of(component)["volumeMounts"]}
    name = mounted["/tmp"]  # noqa: S108 - the container's
    volumes = pod_of(ALL[f"Deployment/despacho-{component}"])["volumes"]
    assert {"name": name, "emptyDir": {}} in volumes


def test_redis_has_the_settings_that_are_shipped() -> None:
    shipped = (ROOT / "deploy" / "redis" / "redis.conf").read_text()
    assert ALL["ConfigMap/despacho-redis"]["data"]["redis.conf"] == shipped


def test_the_users_of_redis_have_the_rights_of_the_page() -> None:
    users = SECRETS["despacho-redis"]["users.acl"]
    for who in ("front-end", "worker", "operator"):
        [line] = [each for each in users.splitlines() if each.startswith(f"user {who} ")]
        assert line.split()[4:] == documented(who)


def test_the_operator_of_redis_may_do_what_the_page_says_and_no_more() -> None:
    told = told_to_operators()
    assert {"BGREWRITEAOF", "CONFIG SET auto-aof-rewrite-percentage 0", "ACL LOAD"} <= {*told}
    assert documented("operator") == sorted({right_to(command) for command in told})


def test_the_example_of_keys_can_be_read() -> None:
    assert [key.name for key in parsed(SECRETS["despacho-keys"]["keys.toml"])] == ["camera-1"]

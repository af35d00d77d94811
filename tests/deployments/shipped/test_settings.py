"""Serve configs: what is accepted, and what a typo leads to."""

from pathlib import Path

import pytest

from deployments.assembly import catalogue_of
from deployments.settings import DEFAULT_CONFIG, ROOT, ConfigError, load_serve_config, parse_settings

MODEL = {"card": "embedded/sd15"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"modles": {}}, "unknown key 'modles'; did you mean 'models'?"),
        ({"models": {"a": {"crad": "x"}}}, "models.a: unknown key 'crad'; did you mean 'card'?"),
        ({"models": {"a": {}}}, "models.a.card: this key is missing"),
        ({"models": {}}, "models"),
        ({"models": {"a": {**MODEL, "replicas": 0}}}, "replicas must be 1 or more"),
        ({"models": {"a": {**MODEL, "replicas": {"max": 2}}}}, "models.a.replicas: unknown key 'max'"),
        ({"models": {"a": {**MODEL, "replicas": {"min_replicas": 3, "max_replicas": 2}}}}, "above max_replicas"),
        ({"models": {"a": {**MODEL, "device": "cuda", "num_gpus": 0}}}, "device: cuda needs num_gpus above 0"),
        ({"models": {"a": {**MODEL, "device": "gpu"}}}, "models.a.device: should be 'auto', 'cpu' or 'cuda'"),
        ({"models": {"a": {**MODEL, "num_gpus": float("nan")}}}, "models.a.num_gpus"),
        ({"models": {"a": {**MODEL, "replicas": {"max_replicas": 2, "target_ongoing": 1}}}}, "unknown key"),
        ({"models": {"a": {**MODEL, "worker": "a b"}}}, "models.a.worker"),
        ({"models": {"a": {**MODEL, "tuning": {"compil": "full"}}}}, "models.a.tuning: unknown key 'compil'; did you"),
        ({"models": {"a": {**MODEL, "tuning": {"compile": "all"}}}}, "models.a.tuning.compile: should be 'regional'"),
        (
            {"models": {"a": {**MODEL, "tuning": {"cache": {"first_block": 2}}}}},
            "models.a.tuning.cache.first_block: should be less than or equal to 1",
        ),
        ({"models": {"a": MODEL}, "workers": {"b": {"devices": "cpu"}}}, "workers.b: unknown key 'devices'; did you"),
        ({"models": {"a": MODEL}, "workers": {"b": {"device": "cpu"}}}, "workers.b: no model says `worker: b`"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_path(data: dict, message: str) -> None:
    """Every mistake in the settings is refused with the path of the key and, for a typo, the nearest key."""
    with pytest.raises(ConfigError) as refused:
        parse_settings(data, "my.yaml: args")
    assert str(refused.value).startswith("my.yaml: args: ")
    assert message in str(refused.value)


def test_tuning_reaches_the_card() -> None:
    """What the config tunes is on the model's card, in words that costs and evidence go by."""
    tuning = {"compile": "regional", "quantize": "int8"}
    settings = parse_settings({"models": {"a": {**MODEL, "tuning": tuning}, "b": MODEL}})
    cards = catalogue_of(settings)
    assert (cards["a"].tuned, cards["a"].changes) == ("compile=regional,quantize=int8", "quantize=int8")
    assert (cards["b"].tuned, cards["b"].changes, cards["b"].tuning) == ("", "", {})


def test_accelerators_follow_the_device() -> None:
    """A model on `cuda` asks for one accelerator, another for none, and a fraction is taken as given."""
    models = {
        "a": {**MODEL, "device": "cuda"},
        "b": {**MODEL, "device": "cpu"},
        "c": {**MODEL, "device": "cuda", "num_gpus": 0.25},
    }
    settings = parse_settings({"models": models})
    assert [settings.models[name].gpus for name in "abc"] == [1.0, 0.0, 0.25]


SHARED = {"a": {**MODEL, "worker": "w"}, "b": {"card": "embedded/sdxl", "worker": "w"}, "c": {**MODEL, "threads": 3}}


def test_models_that_name_a_worker_share_its_place() -> None:
    """What is said of a worker, by its section or by one of its models, holds for all of them."""
    models = {**SHARED, "b": {**SHARED["b"], "threads": 2}}
    settings = parse_settings({"models": models, "workers": {"w": {"device": "cuda", "num_gpus": 0.5}}})
    assert {name: settings.models_of(name) for name in settings.workers} == {"w": ("a", "b"), "c": ("c",)}
    assert {(m.device, m.num_gpus, m.threads) for m in (settings.models["a"], settings.models["b"])} == {
        ("cuda", 0.5, 2)
    }
    assert (settings.workers["w"].gpus, settings.workers["w"].threads, settings.workers["c"].threads) == (0.5, 2, 3)


def test_settings_survive_the_way_to_another_process() -> None:
    """Settings that were written out and read again say the same of every model and worker."""
    settings = parse_settings({"models": SHARED, "workers": {"w": {"device": "cpu", "threads": 2}}})
    assert parse_settings(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("models", "workers", "message"),
    [
        (
            {"a": {"device": "cpu"}, "b": {"device": "cuda"}},
            {},
            "models.b.device: 'cuda' contradicts 'cpu' of models.a; they share the worker 'w'",
        ),
        (
            {"a": {}, "b": {"replicas": 2}},
            {"w": {"replicas": 3}},
            "models.b.replicas: 2 contradicts 3 of workers.w; they share the worker 'w'",
        ),
        ({"a": {"num_gpus": 0}}, {"w": {"device": "cuda"}}, "worker 'w': device: cuda needs num_gpus above 0"),
    ],
)
def test_places_that_contradict_are_refused(models: dict, workers: dict, message: str) -> None:
    """A worker runs in one place: two that are asked for are named with who asked."""
    with pytest.raises(ConfigError) as refused:
        parse_settings({"models": {m: {**SHARED[m], **s} for m, s in models.items()}, "workers": workers})
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["embedded.yaml", "real.yaml"])
def test_the_shipped_configs_build(name: str) -> None:
    """The configs that ship with Triptych name cards and policies that exist, and listen on loopback only."""
    from deployments.assembly import catalogue_of, policies_of

    config = load_serve_config(DEFAULT_CONFIG.parent / name)
    catalogue = catalogue_of(config.settings)
    assert policies_of(config.settings, catalogue).default.name == "balanced"
    assert {"sd15", "sdxl", "sdxl-refiner", "flux", "alignment"} <= set(catalogue.ids())
    assert config.host == "127.0.0.1"


def test_relative_paths_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in a config start at the folder of the packages, from wherever it is read."""
    monkeypatch.chdir(tmp_path)
    settings = load_serve_config(DEFAULT_CONFIG).settings
    assert settings.policies.path == ROOT / "policies" / "presets"
    assert settings.policies.path.is_dir()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a: [", "not valid YAML"),
        ("[]", "expected a mapping"),
        ("applications: []", "exactly one entry"),
        ("applications: [3]", "expected a mapping"),
        ("applications: [{import_path: 'other:app'}]", "import_path must be deployments.app:build"),
        ("applications: [{import_path: 'deployments.app:build', args: 3}]", "args"),
        ("http_options: {port: many}\napplications: [{import_path: 'deployments.app:build'}]", "port"),
    ],
)
def test_a_file_that_is_no_config_of_ours_is_refused_by_name(tmp_path: Path, text: str | None, message: str) -> None:
    """A missing, broken or foreign config file is one clear error that names the file."""
    file = tmp_path / "serve.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_serve_config(file)
    assert "serve.yaml" in str(refused.value)
    assert message in str(refused.value)

"""What programs ask A1111's API beside pictures: its options, models, samplers, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.errors import RequestError

AUTO = "auto"
_OPTION = "sd_model_checkpoint"


REMEDIES = {
    _OPTION: f'send it with each as "override_settings": {{"{_OPTION}": …}}',
    "samples_format": 'send it with each as "override_settings": {"samples_format": …}',
    "sd_vae": "the VAE of a model belongs to its card",
    "CLIP_stop_at_last_layers": "all layers are read, unless a recipe wears a style of kind clip_skip",
}
"""What to do instead of changing an option for everybody."""


def options() -> dict[str, Any]:
    """Those that clients read. They are the same for everybody: what a request wants, it says itself."""
    return {_OPTION: AUTO, "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1, "samples_format": "png"}


def set_options(data: Any) -> None:
    """Nothing is kept. What clients have read may be sent back as it is; raises `RequestError` for another value, with
    the remedy, and for an option that there is not."""
    if not isinstance(data, Mapping):
        raise RequestError("the body must be a JSON object", None, "invalid_value")
    for name, value in options().items():
        if name in data and not _same(data[name], value):
            raise RequestError(
                f"{name}: options are not kept from one request to the next; {REMEDIES[name]}",
                name,
                "read_only",
            )
    if unknown := sorted(set(map(str, data)) - set(options())):
        raise RequestError(f"{unknown[0][:40]}: there is no such option here", unknown[0][:40], "unknown_parameter")


def _same(given: Any, value: Any) -> bool:
    return given is None or (given == value and not isinstance(given, bool))  # true is 1 to Python, and not to JSON


def models(listed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Everything that `model` may be, as checkpoints."""
    return [
        {
            "title": one["id"],
            "model_name": one["id"],
            "hash": None,
            "sha256": None,
            "filename": one["id"],
            "config": None,
        }
        for one in listed
    ]


def samplers() -> list[dict[str, Any]]:
    """One name for all: recipes choose."""
    return [{"name": "Automatic", "aliases": ["automatic"], "options": {}}]


def schedulers() -> list[dict[str, Any]]:
    """The same of noise schedules."""
    return [
        {
            "name": "automatic",
            "label": "Automatic",
            "aliases": None,
            "default_rho": -1.0,
            "need_inner_model": False,
        }
    ]


def progress(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the oldest open job is. jobs: those that whoever asks may see, the latest first"""
    jobs = [job for job in jobs if job["state"] in ("queued", "running")]  # one may have ended a moment ago
    job: Mapping[str, Any] = jobs[-1] if jobs else {}
    share = job.get("progress", 0.0)
    state = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": job.get("id", ""),
        "job_count": len(jobs),
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": round(100 * share),
        "sampling_steps": 100 if jobs else 0,
    }
    told = {"progress": share, "eta_relative": job.get("eta_s") or 0.0, "state": state}
    return {**told, "current_image": None, "textinfo": None}

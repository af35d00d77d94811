"""Decisions without workers: any policy on any request, with the catalogue and the predictor of a config.

The policies are those that are served, and the code that decides is the same. Seconds and dollars are priors of the
model cards, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from deployments.api.wire.requests import parse_request, to_request
from deployments.assembly import catalogue_of, router_of
from deployments.known_names import known_of
from deployments.settings import AppSettings
from policies import Known, Policy, load_policy
from policies.store.folder import is_named_like_one, policy_files
from router.cost.model import CostModel
from router.errors import NotFoundError, did_you_mean
from router.planning.plan import make_plan
from router.route import Route
from router.types import Context, GenerationRequest, Plan


class Rehearsal:
    """Loads a config's cards and predictor once; then decides as often as wanted."""

    def __init__(self, settings: AppSettings) -> None:
        self._settings = settings
        self._catalogue = catalogue_of(settings)
        self.known = known_of(self._catalogue)
        self._router = router_of(settings, self._catalogue, CostModel(self._catalogue))

    def policy(self, wanted: str) -> Policy:
        """A policy by its file, or by its name in the folder of the config. Raises `PolicyError`, `NotFoundError`."""
        return find_policy(self._settings, self.known, wanted)

    def request(self, body: Mapping[str, Any]) -> GenerationRequest:
        """A request as it comes over the wire; seed 0 if it names none. Raises `RequestError`."""
        wire = parse_request({"seed": 0, **body}, self._settings.limits)
        return to_request(wire, self._settings.limits)

    def route(self, policy: Policy, body: Mapping[str, Any], now: datetime | None = None) -> Route:
        """Decide, leaving nothing to chance. `model` of the body is not looked at: the policy is given."""
        return self._router.route(self.request(body), policy, Context(now))

    def plan(self, policy: Policy, recipe: str, body: Mapping[str, Any]) -> Plan:
        """The plan of one recipe. Raises `NotFoundError` or `PlanError`."""
        if recipe not in policy.recipes:
            hint = did_you_mean(recipe, policy.recipes)
            raise NotFoundError(f"policy {policy.name!r} has no recipe {recipe!r}{hint}", "recipe")
        return make_plan(recipe, policy.recipes[recipe], self.request(body), self._catalogue, policy.recipes)


def find_policy(settings: AppSettings, known: Known, wanted: str) -> Policy:
    """A policy by its file, or by its name in the folder of the config. Raises `PolicyError`, `NotFoundError`."""
    path = Path(wanted)
    if not is_named_like_one(path):
        try:
            files = {file.stem: file for file in policy_files(settings.policies.path)}
        except OSError as error:
            raise NotFoundError(
                f"the config's folder of policies cannot be read: {settings.policies.path}: {error.strerror}; "
                "make it, or name another under `policies: {directory: …}`",
                "policy",
            ) from error
        if wanted not in files:
            raise NotFoundError(f"there is no policy {wanted!r}{did_you_mean(wanted, files)}", "policy")
        path = files[wanted]
    return load_policy(path, known=known)

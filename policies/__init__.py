"""Policies: recipes, limits, rules and an objective, as YAML; and the choice of a recipe under them."""

from pathlib import Path as _Path

from policies.checking.load import Known, load_policy, load_policy_text
from policies.checking.reachability import PlannedRecipe
from policies.deciding.decide import Policy
from policies.language.schema import json_schema
from policies.store.book import PolicyBook

__all__ = [
    "PRESETS",
    "Known",
    "PlannedRecipe",
    "Policy",
    "PolicyBook",
    "json_schema",
    "load_policy",
    "load_policy_text",
]

PRESETS = _Path(__file__).parent / "presets"
"""The directory of the policies that are shipped; `probes/` beside them says what each must do."""

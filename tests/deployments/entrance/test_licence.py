"""The terms of a card in the answer to `explain`, and the folders that cards may read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.api.wire.responses import route_report
from deployments.assembly import catalogue_of
from deployments.offline.rehearsal import Rehearsal
from deployments.settings import AppSettings, ConfigError, parse_settings
from policies import load_policy_text

POLICY = """version: 1
name: trade
recipes: {draft: {generate: {model: sd15}}, fine: {generate: {model: flux}}}
objective: {maximise: quality}
licence: {commercial: true}
"""


def test_explain_says_whose_licence_rules_a_recipe_out() -> None:
    """A card that is not for commercial use takes its recipes out of a policy that wants it, with the reason."""
    own = {"commercial_use": False, "licence": "FLUX.1-dev-Non-Commercial"}
    settings = parse_settings(
        {"models": {"sd15": {"card": "embedded/sd15"}, "flux": {"card": "embedded/flux", "overrides": own}}}
    )
    route = Rehearsal(settings).route(load_policy_text(POLICY), {"prompt": "a red circle"})
    report = route_report(route)
    assert report["recipe"] == "draft"
    (out,) = report["rejected"]
    assert (out["recipe"], out["gate"]) == ("fine", "licence")
    assert "the licence of 'flux' (FLUX.1-dev-Non-Commercial) does not allow commercial use" in out["reason"]


def test_cards_read_from_the_allowed_folders_only(settings: AppSettings, tmp_path: Path) -> None:
    """A source or a component outside of `weights.directories` is refused by name, also by a link; shipped ones are
    not meant."""
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path)
    allowed = {"weights": {"directories": [str(tmp_path / "allowed")]}}
    inside = {"overrides": {"source": {"local": str(tmp_path / "allowed" / "sd15")}}}
    shipped = {"card": "embedded/sd15"}
    catalogue_of(parse_settings({"models": {"a": shipped, "b": {**shipped, **inside}}, **allowed}))
    for overrides, where in (
        ({"source": {"local": str(tmp_path / "elsewhere")}}, "source.local"),
        ({"source": {"local": str(tmp_path / "allowed" / "link" / "elsewhere")}}, "source.local"),
        ({"components": {"vae": {"file": str(tmp_path / "vae.safetensors")}}}, r"components\.vae\.file"),
    ):
        made = parse_settings({"models": {"a": {**shipped, "overrides": overrides}}, **allowed})
        with pytest.raises(ConfigError, match=rf"model 'a': {where}: .* lies outside of weights\.directories"):
            catalogue_of(made)

"""docs/policies.md: its examples load, and its reference is what the schema says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.known_names import known_of
from models import load_catalogue
from policies import load_policy_text
from policies.language.reference import put_into
from tests.router.cards import CATALOGUE, Cards

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "policies.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
TURBO = replace(CATALOGUE["sdxl"], id="sdxl-turbo")
CARDS = {**CATALOGUE.cards, "sdxl": replace(CATALOGUE["sdxl"], guests=("sdxl-turbo",)), "sdxl-turbo": TURBO}
KNOWN = replace(known_of(Cards(CARDS)), schedulers=("default", "dpmsolver++"))
PARTS = {
    "version": "version: 1\n",
    "name": "name: shop\n",
    "recipes": """recipes:
  draft: {generate: {model: sd15}}
  standard: {chain: [{generate: {model: sdxl, until: 0.8}}, {refine: {model: sdxl-refiner, from: 0.8}}]}
  premium: {generate: {model: flux}}
""",
    "objective": "objective: {maximise: quality}\n",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.split("\n")[0][:40] for example in EXAMPLES])
def test_every_example_is_a_policy(example: str) -> None:
    """Each example loads as it stands, with the parts that it leaves out."""
    given = set(re.findall(r"^([a-z_]+):", example, re.MULTILINE))
    load_policy_text("".join(text for key, text in PARTS.items() if key not in given) + example, known=KNOWN)


FUSION = (DOCUMENT.parent / "fusion.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"^```yaml\n(.*?)^```$", FUSION, re.MULTILINE | re.DOTALL))
def test_examples_of_fusions_load_on_the_embedded_family(example: str) -> None:
    """Every recipe of docs/fusion.md can be arranged on the models that it was measured on."""
    models = ("sd15", "sdxl", "sdxl-turbo", "sdxl-refiner", "flux", "alignment")
    entries = {model: {"card": f"embedded/{model}"} for model in models}
    entries["sdxl"] |= {"guests": ["sdxl-turbo"]}
    known = known_of(load_catalogue(entries))
    head = "".join(PARTS[key] for key in ("version", "name", "objective"))
    policy = load_policy_text(head + example, known=known)
    assert len(policy.recipes) >= 2


def test_the_reference_is_up_to_date() -> None:
    """The tables of the document are those of the schema; `triptych policy schema --markdown --into` renews them."""
    assert put_into(TEXT) == TEXT


def test_every_key_says_what_it_is() -> None:
    """No row of the reference lacks a type, and every number says its unit or what it is a share of."""
    rows = re.findall(r"^\| `(.+?)` \| (.*?) \| (.*?) \| (.*?) \|$", TEXT, re.MULTILINE)
    assert len(rows) > 90
    assert [key for key, kind, _, meaning in rows if not kind or ("number" in kind and not meaning)] == []

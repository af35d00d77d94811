"""Cards of models that another server draws with: what they may say, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from models import load_card
from models.remote.source import near
from router.errors import CatalogueError

README = Path(__file__).resolve().parents[3] / "models" / "cards" / "README.md"
CARD: dict[str, Any] = {"id": "away", "family": "remote", "role": "base", "native_size": [1024, 1024]}
SOURCE: dict[str, Any] = {"url": "https://api.example.org/v1/", "model": "gpt-image-1"}


def load(folder: Path, source: dict[str, Any] | None = None, **card: Any) -> Any:
    """A card from a file with `source.remote` and further keys."""
    path = folder / "away.yaml"
    path.write_text(yaml.safe_dump({**CARD, "source": {"remote": {**SOURCE, **(source or {})}}, **card}))
    return load_card(path)


def test_a_remote_card_says_what_is_known(tmp_path: Path) -> None:
    """It takes no memory, refines nothing, relays nothing, and draws at its sizes exactly; one pass is its work."""
    card = load(tmp_path, native_sizes=[[1024, 1024], [1536, 1024]], max_pixels=1536 * 1024)
    assert (card.memory_gb, card.refines, card.relays, card.takes_negative, card.steps) == (0, False, False, False, 1)
    assert card.good_at(1536, 1024)
    assert card.max_prompt_tokens > 100_000
    assert not card.good_at(1152, 1024)
    assert card.remote.name == "api.example.org/gpt-image-1"
    assert card.remote.url == "https://api.example.org/v1"
    assert not any(card.takes(key) for key in ("seed", "steps", "guidance_scale", "negative_prompt", "scheduler"))


def test_what_it_takes_is_a_list_or_a_table(tmp_path: Path) -> None:
    """Settings go under their own names, or under those that the server has for them."""
    card = load(tmp_path, {"takes": ["seed", "negative_prompt"]})
    assert card.takes("seed")
    assert card.takes_negative
    assert load(tmp_path, {"takes": {"steps": "num_inference_steps"}}, steps=8).steps == 8


def test_its_price_is_of_a_picture_a_megapixel_or_an_hour(tmp_path: Path) -> None:
    """Without a price of its own, its seconds cost what the card's accelerator does."""
    assert load(tmp_path, {"price_usd": 0.04}).cost_usd(100, 2e6) == 0.04
    assert load(tmp_path, {"price_usd": 0.04, "price_per": "megapixel"}).cost_usd(100, 2e6) == 0.08
    assert load(tmp_path, usd_per_hour=3.6).cost_usd(100, 2e6) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("source", "card", "words"),
    [
        ({"url": "ftp://x/v1"}, {}, "write https://host/v1"),
        ({"url": "file:///etc/passwd"}, {}, "write https://host/v1"),
        ({"url": "https://user:secret@x/v1"}, {}, "name a variable with the key"),
        ({"url": "https://x/v1?key=secret"}, {}, "name a variable with the key"),
        ({"url": "https://x:port/v1"}, {}, "no address"),
        ({"key_env": "sk-abcdef"}, {}, "the key itself belongs into that"),
        ({"key": "sk-abcdef"}, {}, "unknown key 'key'; did you mean 'key_env'"),
        ({"url": "http://api.example.org/v1", "key_env": "KEY"}, {}, "in the clear"),
        ({"takes": ["sed"]}, {}, "did you mean 'seed'"),
        ({"takes": {"seed": "prompt"}}, {}, "says something else"),
        ({"previews": 2}, {}, "add 'stream: true'"),
        ({"price_usd": -1}, {}, "greater than or equal to 0"),
        ({"timeout_s": 0}, {}, "greater than 0"),
        ({}, {"steps": 20}, "nothing that the server is told"),
        ({}, {"guidance_scale": 2}, "nothing that the server is told"),
        ({}, {"latent_space": "sdxl"}, "means nothing where another server draws"),
        ({}, {"settings": {"size": "256x256"}}, "each step says by itself"),
        ({}, {"family": "sdxl", "latent_space": "x"}, "go together"),
        ({}, {"role": "refiner"}, "has no role 'refiner'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, source: dict[str, Any], card: dict[str, Any], words: str
) -> None:
    """Addresses that are none, keys in the file, settings without a meaning: each is an error that says what to do, and
    repeats no secret."""
    with pytest.raises(CatalogueError, match=re.escape(words)) as told:
        load(tmp_path, source, **card)
    assert "secret" not in told.value.message
    assert "abcdef" not in told.value.message


@pytest.mark.parametrize(
    ("url", "is_near"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://10.1.2.3/v1", True),
        ("http://gpu-box:8000/v1", True),
        ("http://api.example.org/v1", False),
        ("http://8.8.8.8/v1", False),
    ],
)
def test_a_key_goes_in_the_clear_to_neighbours_only(tmp_path: Path, url: str, is_near: bool) -> None:
    """Loopback, private addresses and names of one label are near; a key may go there by plain HTTP."""
    assert near(url) is is_near
    if is_near:
        assert load(tmp_path, {"url": url, "key_env": "KEY"}).remote.key_env == "KEY"


def test_the_examples_of_the_documentation_load(tmp_path: Path) -> None:
    """Every whole remote card in the page on model cards is one."""
    found = [
        text for text in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL) if "family: remote" in text
    ]
    assert len(found) >= 2
    for number, text in enumerate(found):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert load_card(path).remote is not None

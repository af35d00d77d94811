"""Cards of styles, YAML files in folders, to `router.types.Style`s.

A style's weights lie in one of the folders that the installation allows, and are safetensors; whatever else a card
names is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.families import FAMILIES
from models.schedulers import SCHEDULERS
from models.styles.kinds import KINDS
from router.errors import CatalogueError, did_you_mean
from router.types import Style

SHIPPED = Path(__file__).resolve().parent
"""The styles of the embedded family."""
MOST = {"from": 1, "to": 1, "cross_attention_until": 1, "self_attention_until": 1, "pag": 20}
"""Of numbers of `settings`; 4 of all others."""
OWNED = {
    **{"blocks": "pag", "from": "words", "to": "words"},
    **{"cross_attention_until": "instead_of", "self_attention_until": "instead_of"},
}
"""Settings of an attention style, each with the one that it goes with."""
WEIGHTS = SHIPPED.parent / "embedded" / "weights"
"""Where those of their weights lie that were distilled from a model of it."""


class StyleFile(BaseModel):
    """One card as written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="what recipes and requests call it")
    family: str = Field(description="of the models that may wear it")
    kind: str = Field(description="what of a pipeline it changes")
    source: dict[str, str] = Field(
        default_factory=dict, description="`file`, beside the card or of a `hub` (and its `revision`); or `text`"
    )
    weight: Annotated[float, Field(gt=-4, lt=4)] = Field(1.0, description="what a weight of 1 stands for")
    trigger: str = Field("", max_length=200, description="words that it adds to the prompt")
    licence: str = Field("unknown", description="of the file")
    settings: dict[str, str | int | float | dict[str, float] | dict[str, str]] = Field(
        default_factory=dict, description="numbers of its kind"
    )
    latent_space: str = Field("", description="only for models with this space; empty: all of the family")
    in_prompts: bool = Field(False, description="whether a prompt may name it: <lora:ID:WEIGHT>")
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> StyleFile:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}{did_you_mean(self.kind, KINDS)}")
        kind = KINDS[self.kind]
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family {self.family!r}{did_you_mean(self.family, FAMILIES)}")
        if self.family not in kind.families:
            why = f": {kind.why}" if kind.why else ""
            raise ValueError(f"{self.kind} is for {', '.join(kind.families)}, not for family {self.family!r}{why}")
        places = {need for need in kind.needs if need in ("file", "encoder", "text")}
        numbers = set(kind.needs) - places
        hub = {"hub", "revision"} if "file" in places and "hub" in self.source else set()
        for have, allowed, where in (
            (set(self.source) - hub, places, "source"),
            (set(self.settings), numbers | set(kind.takes) | set(kind.either), "settings"),
        ):
            if missing := (places if where == "source" else numbers) - have:
                raise ValueError(f"a {self.kind} needs {where}: {', '.join(sorted(missing))}")
            if surplus := have - allowed:
                raise ValueError(f"a {self.kind} has no {where}: {', '.join(sorted(surplus))}")
        if kind.either and len(found := [key for key in kind.either if key in self.settings]) != 1:
            raise ValueError(f"a {self.kind} needs one of settings: {', '.join(kind.either)}; it has {len(found)}")
        if "text" in self.source and "{prompt}" not in self.source["text"]:
            raise ValueError("source: text is another prompt; say where the own one stands in it, by {prompt}")
        if "text" in self.source and self.weight != 1:
            raise ValueError("an embedding_mix goes over into its text at weight 1; drop `weight`")
        if not kind.blends and self.weight != 1:
            raise ValueError(f"a {self.kind} is worn or not; drop `weight`")
        if self.kind == "textual_inversion" and not self.trigger.strip():
            raise ValueError("a textual_inversion needs a trigger, the word that stands for it, such as <film>")
        if self.kind != "textual_inversion" and self.kind != "lora" and self.trigger:
            raise ValueError(f"a {self.kind} adds nothing to the prompt; drop `trigger`")
        if self.trigger and self.family not in KINDS["embedding_mix"].families:
            raise ValueError(f"family {self.family!r} reads prompts of any length, so no trigger can be added; drop it")
        self._check_settings()
        return self

    def _check_settings(self) -> None:
        for key, value in self.settings.items():
            if key == "scheduler":
                flow = FAMILIES[self.family].flow
                known = [name for name, row in SCHEDULERS.items() if row.flow in (None, flow)]
                if value not in known:
                    raise ValueError(
                        f"settings.scheduler: no {value!r} for {self.family}{did_you_mean(str(value), known)}"
                    )
            elif key == "layers":
                if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 12:
                    raise ValueError(f"settings.layers: {value!r} is not a whole number in 1..12")
            elif key == "words":
                if not isinstance(value, dict) or not all(
                    word.strip() and not isinstance(n, str) and 0 <= n <= 4 for word, n in value.items()
                ):
                    raise ValueError("settings.words: it gives each word a number in 0..4, such as {red: 1.5}")
            elif key == "instead_of":
                words = value if isinstance(value, dict) else {value: ""}
                if not words or not all(isinstance(word, str) and word.strip() for word in words):
                    raise ValueError("settings.instead_of: it is a prompt, or gives words others, such as {red: blue}")
                if not all(isinstance(other, str) for other in words.values()):
                    raise ValueError("settings.instead_of: what stands for a word is text, such as {red: blue}")
            elif key == "blocks":
                if not isinstance(value, str) or not value:
                    raise ValueError(f"settings.blocks: {value!r} is no part of a block's name, such as mid")
            elif isinstance(value, str | dict) or not 0 <= value <= MOST.get(key, 4):
                raise ValueError(f"settings.{key}: {value!r} is not a number in 0..{MOST.get(key, 4)}")
        begin, end = self.settings.get("from", 0), self.settings.get("to", 1)
        for key, owner in OWNED.items():
            if self.kind == "attention" and key in self.settings and owner not in self.settings:
                raise ValueError(f"settings.{key}: it belongs to {owner!r}; drop it")
        if "words" in self.settings and not begin < end:  # type: ignore[operator]
            raise ValueError(f"settings.to: {end} is not after from, {begin}")

    def to_style(self, path: Path, allowed: Sequence[Path]) -> Style:
        """The value that the rest of the system uses. Raises `CatalogueError` for a file that may not be read."""
        kind = KINDS[self.kind]
        source = dict(self.source)
        if "hub" in source:
            _check_format(source["file"], path)
        elif "file" in source:
            source["file"] = str(allowed_file(source["file"], path, allowed))
            if "encoder" in source:
                source["encoder"] = str(allowed_file(f"{source['encoder']}/model.safetensors", path, allowed).parent)
        beside = "instead_of" in self.settings  # another picture is made, with its own guidance
        return Style(
            **self.model_dump(exclude={"source", "in_prompts"}),
            source=source,
            steps=kind.steps,
            least=kind.least,
            most=1.0 if beside else kind.most,
            many=kind.many,
            blends=kind.blends,
            passes=2 if beside else int("pag" in self.settings),
            card_path=str(path),
        )


def allowed_file(name: str, card: Path, allowed: Sequence[Path]) -> Path:
    """Where a card's file is; a path starts at the card's folder. Raises `CatalogueError` with the file's name.

    allowed: folders, in one of which it must lie once all links are followed
    """
    _check_format(name, card)
    path = (card.parent / Path(name).expanduser()).resolve()
    if not any(path.is_relative_to(folder.resolve()) for folder in allowed):
        raise CatalogueError(
            f"{card}: source: {name!r} lies outside of the folders of styles ({', '.join(map(str, allowed))}); move it "
            "there, or add its folder to `styles: {directories: [...]}`"
        )
    if not path.is_file():
        raise CatalogueError(f"{card}: source: there is no file {path}")
    return path


def _check_format(name: str, card: Path) -> None:
    if not name.endswith(".safetensors"):
        raise CatalogueError(
            f"{card}: source: {name!r} is not .safetensors, and other formats may run code when opened; convert it"
        )


def load_style(path: Path, allowed: Sequence[Path] = ()) -> Style:
    """One style from its card. Raises `CatalogueError` naming the file and what is wrong.

    allowed: folders from which weights may be read, beside the card's own
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise CatalogueError(f"{path}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(data, dict):
        raise CatalogueError(f"{path}: a style is a mapping of keys, starting with 'id: ...'")
    for key in data:
        if key not in StyleFile.model_fields:
            raise CatalogueError(f"{path}: unknown key {str(key)!r}{did_you_mean(str(key), StyleFile.model_fields)}")
    try:
        return StyleFile.model_validate(data).to_style(path, (path.parent, *allowed))
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            place = ".".join(map(str, detail["loc"]))
            lines.append(f"{path}: {place + ': ' if place else ''}{detail['msg'].removeprefix('Value error, ')}")
        raise CatalogueError("\n".join(lines)) from None


def named_in_prompts(directories: Sequence[Path] = ()) -> dict[str, bool]:
    """Of the shipped styles and those of further folders, by id, whether a prompt may name them. What is wrong with a
    card says `load_styles`; such a card is left out."""
    found: dict[str, bool] = {}
    for folder in (SHIPPED, *directories):
        for path in sorted(folder.expanduser().glob("*.yaml")):
            try:
                stat = path.stat()
                id, allowed = _named(path, stat.st_mtime_ns, stat.st_size)
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue
            if isinstance(id, str):
                found[id] = allowed is True
    return found


@lru_cache(maxsize=1024)
def _named(path: Path, changed_ns: int, size: int) -> tuple[Any, Any]:
    """`id` and `in_prompts` of a card, read again when the file has changed."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return (data.get("id"), data.get("in_prompts")) if isinstance(data, dict) else (None, None)


def load_styles(directories: Sequence[Path] = ()) -> dict[str, Style]:
    """The shipped styles and those of further folders, by id. Raises `CatalogueError`, also for an id that is there
    twice."""
    found: dict[str, Style] = {}
    folders = (SHIPPED, *(folder.expanduser().resolve() for folder in directories))
    for folder in folders:
        if not folder.is_dir():
            raise CatalogueError(f"styles: there is no folder {folder}")
        for path in sorted(folder.glob("*.yaml")):
            style = load_style(path, (*folders, WEIGHTS))
            if style.id in found:
                raise CatalogueError(f"{path}: the style {style.id!r} is there already ({found[style.id].card_path})")
            found[style.id] = style
    return found

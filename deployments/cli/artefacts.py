"""What commands that train have in common: what is said beside a result, what may be replaced, figures as JSON."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deployments.cli.console import AsJson, Config, err, print_json, say
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.errors import ArtifactError, TriptychError

if TYPE_CHECKING:
    from deployments.served_recipes import ServedRecipe
    from router.registry.artifact import Artifact


@dataclass
class Notes:
    """Things that a person should know beside the result: on stderr at once, and kept in `told`."""

    told: list[str] = field(default_factory=list)

    def tell(self, note: str) -> None:
        self.told.append(note)
        style = "yellow" if note.startswith("warning:") else None
        err.print(note, style=style, highlight=False, markup=False, soft_wrap=True)

    def doubt(self, recipe: str, pearson: float, prompts: int) -> None:
        """A warning if what was predicted for held-out prompts does not follow the ratings, or may by chance."""
        low, high = pearson_interval(pearson, prompts)
        if low > 0:
            return
        how = "runs against" if high < 0 else "does not follow"
        self.tell(
            f"warning: what is predicted for {recipe!r} {how} its ratings on prompts that were held out (Pearson "
            f"{pearson:.2f} on {prompts}, 95 % from {low:.2f} to {high:.2f}): which prompts suit it is not known. "
            "Rate more prompts, or look at the ratings"
        )

    def strangers(self, artifact: Artifact, config: Path) -> None:
        """A warning if no recipe that the config serves follows from a column of the artefact."""
        from deployments.assembly import catalogue_of, policies_of
        from deployments.served_recipes import served_recipes, stranger
        from router.quality.predictor import QualityPredictor

        try:
            settings = load_serve_config(config).settings
            catalogue = catalogue_of(settings)
            predictor = QualityPredictor(artifact, catalogue)
            recipes = served_recipes(policies_of(settings, catalogue), catalogue, predictor)
        except TriptychError as error:
            self.tell(f"warning: whether {config} serves these models was not checked: {error}")
            return
        if warning := stranger(predictor.columns, recipes):
            self.tell(f"warning: {warning} (policies of {config}; --config names another)")


def pearson_interval(pearson: float, count: int) -> tuple[float, float]:
    """95 % by Fisher's z; all that there is with fewer than four."""
    if count < 4 or not math.isfinite(pearson):
        return -1.0, 1.0
    centre, width = math.atanh(max(-0.999999, min(0.999999, pearson))), 1.96 / math.sqrt(count - 3)
    return math.tanh(centre - width), math.tanh(centre + width)


def may_write(folder: Path, force: bool) -> None:
    """Whether an artefact may go into `folder`, before hours of work: where one is already, only with --force, or if a
    person says so. Raises `ArtifactError`."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"--out {folder}: this is a file; name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "manifest.json").is_file():
        raise ArtifactError(f"--out {folder} holds other files and is not overwritten; choose an empty folder")
    if force:
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        if typer.confirm(
            f"{folder} holds a trained artefact. Replace it? (`triptych router rollback` undoes it)", err=True
        ):
            return
        raise ArtifactError(f"--out {folder}: left as it was")
    raise ArtifactError(
        f"--out {folder} holds a trained artefact already; add --force to replace it, or choose another folder"
    )


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """What `folder` holds goes into its history before it is replaced; not if that fails."""
    from router.registry.versions import keep

    kept = keep(folder) if (folder / "manifest.json").is_file() else None
    try:
        yield
    except BaseException:
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)
        raise


def print_figures(value: Any) -> None:
    """One JSON document; what is not a number is null."""
    print_json(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def keys(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """The keys of the recipes that a config serves: what a table of ratings calls its models. And what the artefact of
    the config knows of each: rated itself, follows from what is rated, or nothing."""
    from deployments.assembly import catalogue_of, policies_of
    from deployments.served_recipes import served_recipes, stranger
    from router.quality.predictor import QualityPredictor
    from router.registry.artifact import load_artifact

    settings = load_serve_config(config).settings
    catalogue = catalogue_of(settings)
    predictor = QualityPredictor(load_artifact(settings.artifact_path), catalogue)
    recipes = served_recipes(policies_of(settings, catalogue), catalogue, predictor)
    if as_json:
        print_figures([{"key": r.key, "policy": r.policy, "recipe": r.name, "evidence": r.evidence} for r in recipes])
    else:
        for line in _lines(recipes):
            say(line)
    if warning := stranger(predictor.columns, recipes):
        err.print(f"warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _lines(recipes: Sequence[ServedRecipe]) -> Iterator[str]:
    """Each key once on a line of its own, to be copied, and below it where it is served."""
    by_key: dict[str, list[ServedRecipe]] = {}
    for recipe in recipes:
        by_key.setdefault(recipe.key, []).append(recipe)
    for key, some in by_key.items():
        yield f"{key}: {some[0].evidence}"
        yield f"    {', '.join(f'{one.policy}/{one.name}' for one in some)}"

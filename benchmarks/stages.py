"""What follows from the weights of the embedded family, in the order in which it is made: a row each.

What a stage reads decides whether it is stale; a row says so of everything whose change makes its results others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WEIGHTS = "models/embedded/weights"
OUTCOMES = "benchmarks/embedded_outcomes"
ARTIFACT = "router/artifacts/embedded"
TABLES = (f"{OUTCOMES}/outcomes_train.csv", f"{OUTCOMES}/outcomes_test.csv")
DRAWN = (
    f"{WEIGHTS}/*/**/*.safetensors",
    "models/cards/embedded/*.yaml",
    "models/styles/*.yaml",
    "models/styles/*.safetensors",
)
"""What decides about a picture."""
MEASURED = {
    "sd15": ("sd15",),
    "sd15-lcm": ("sd15", "sd15-lcm"),
    "sdxl": ("sdxl",),
    "sdxl-turbo": ("sdxl-turbo",),
    "sdxl-refiner": ("sdxl", "sdxl-refiner"),
    "flux": ("flux",),
    "flux-schnell": ("flux-schnell",),
}
"""Models with a card of marks, and the folders of weights that draw for it."""
PRESETS = ("policies/presets/*.yaml",)
ROUTED = (f"{ARTIFACT}/*.*", f"{ARTIFACT}/judges/*", *PRESETS)
"""What decides about a recipe."""


@dataclass(frozen=True)
class Stage:
    """A step of the renewal.

    commands: modules with their arguments, as after `python -m`; `{jobs}` is the number of processes
    reads, writes: patterns of files, from the root
    beside: may run at the same time as its neighbours that may;   usual: is made without being named
    group:  a name for several stages
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    beside: bool = False
    usual: bool = True
    group: str = ""

    def trained(self, minutes: float) -> Stage:
        """The stage with a training of so many minutes."""
        return replace(self, commands=tuple((*words, "--minutes", f"{minutes:g}") for words in self.commands))


def _card(name: str, folders: tuple[str, ...]) -> Stage:
    train = "models.embedded.train"
    commands = ((train, "evaluate", name, "--n", "200"), (train, "sheet", name))
    reads = tuple(f"{WEIGHTS}/{folder}/**/*.safetensors" for folder in folders)
    return Stage(f"card-{name}", commands, reads, (f"{WEIGHTS}/{name}/measured.json",), beside=True, group="cards")


def _outcomes(split: str) -> Stage:
    command = ("benchmarks.embedded_outcomes.run", "--split", split, "--processes", "{jobs}")
    return Stage(f"outcomes-{split}", (command,), (*DRAWN, *PRESETS), (f"{OUTCOMES}/outcomes_{split}.csv",))


STAGES: tuple[Stage, ...] = (
    Stage(
        "verifier",
        (("models.embedded.train", "verifier"),),
        tuple(f"{WEIGHTS}/{name}/**/*.safetensors" for name in ("sd15", "sdxl", "sdxl-turbo", "flux")),
        (f"{WEIGHTS}/verifier/*.safetensors",),
        usual=False,
    ),
    *(_card(name, folders) for name, folders in MEASURED.items()),
    _outcomes("train"),
    _outcomes("test"),
    Stage(
        "seconds",
        (("benchmarks.embedded_outcomes.run", "--seconds", "30"),),
        (*DRAWN, *PRESETS),
        (f"{OUTCOMES}/seconds.json",),
    ),
    Stage(
        "router",
        (("benchmarks.embedded_outcomes.train_router",),),
        TABLES,
        (f"{ARTIFACT}/manifest.json", f"{OUTCOMES}/judged.json"),
    ),
    Stage(
        "calibration",
        (
            (
                *("deployments.cli", "router", "calibrate-scorer", TABLES[0], "--right", "exact"),
                *("--artefact", ARTIFACT, "--card", "embedded/alignment"),
            ),
        ),
        (TABLES[0], f"{ARTIFACT}/manifest.json", f"{WEIGHTS}/verifier/*.safetensors"),
        (f"{ARTIFACT}/judges/alignment.json",),
    ),
    # These follow from what is there by now and not from each other; the longest come first.
    Stage(
        "members",
        (("benchmarks.frontier.members", "--into", "docs/evidence.md"),),
        (*TABLES, f"{OUTCOMES}/seconds.json", f"{ARTIFACT}/*.*"),
        ("benchmarks/frontier/members.json",),
        beside=True,
    ),
    Stage(
        "frontier",
        (("benchmarks.frontier.run",), ("benchmarks.frontier.plot",)),
        (*TABLES, f"{OUTCOMES}/seconds.json", f"{ARTIFACT}/*.*"),
        ("benchmarks/frontier/frontier.json", "benchmarks/frontier/frontier.svg"),
        beside=True,
    ),
    Stage("fusion", (("benchmarks.fusion.run",),), DRAWN[:2], ("benchmarks/fusion/summary.json",), beside=True),
    Stage(
        "first-pictures",
        (("benchmarks.first_pictures",),),
        (*DRAWN, *ROUTED),
        ("benchmarks/results/first_pictures.json",),
        beside=True,
    ),
    Stage(
        "fusion-sheets",
        (("benchmarks.fusion.sheets",),),
        DRAWN[:2],
        ("benchmarks/fusion/sheets/seams.json",),
        beside=True,
    ),
    Stage(
        "contrasts",
        (("benchmarks.embedded_outcomes.contrasts", "--json", f"{OUTCOMES}/contrasts.json"),),
        (*TABLES, f"{OUTCOMES}/seconds.json", f"{ARTIFACT}/*.*"),
        (f"{OUTCOMES}/contrasts.json",),
        beside=True,
    ),
    Stage(
        "agreement",
        (
            (
                *("benchmarks.embedded_outcomes.run", "--split", "test", "--all", "--draw", "--processes", "{jobs}"),
                *("--recipes", "flux>sdxl-refiner:strength=0.25", "sdxl>sdxl-refiner:from=0.8"),
            ),
            ("benchmarks.fusion.agreement",),
        ),
        (*DRAWN[:2], TABLES[1]),
        ("benchmarks/fusion/agreement.json",),
        beside=True,
    ),
    Stage(
        "goldens",
        (("tests.golden.record",), ("tests.router.planning.test_plans",), ("tests.router.learning.test_figures",)),
        (*DRAWN, *ROUTED),
        ("tests/golden/*.json",),
    ),
    Stage(
        "answers", (("tests.deployments.entrance.test_answers",),), (*DRAWN, *ROUTED), ("tests/golden/answers.json",)
    ),
    # Hours, or an idle machine.
    Stage(
        "voting",
        (
            (
                *("benchmarks.embedded_outcomes.run", "--split", "test"),
                *("--all", "--draw", "--processes", "{jobs}"),
                *("--recipes", "sd15", "sdxl", "flux"),
            ),
            ("benchmarks.fusion.voting",),
        ),
        DRAWN[:2],
        ("benchmarks/fusion/voting.json",),
        usual=False,
    ),
    Stage(
        "sizes",
        (("benchmarks.embedded_sizes",),),
        DRAWN[:2],
        ("benchmarks/results/embedded_sizes.json",),
        usual=False,
    ),
    Stage(
        "tuning", (("benchmarks.speed.tuning",),), DRAWN[:2], ("benchmarks/results/tuning/tuning.json",), usual=False
    ),
    Stage(
        "overhead",
        (("benchmarks.serving.overhead",),),
        DRAWN[:2],
        ("benchmarks/results/serving/overhead.json",),
        usual=False,
    ),
)

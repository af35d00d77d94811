"""One bootstrap from its options to its conclusion: what the command `triptych bootstrap` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deployments.assembly import catalogue_of
from deployments.bootstrap.beginning import cards_of, judge_for, prompts_for, recipes_of
from deployments.bootstrap.campaign import UNTIL, Budget, Campaign, Choose, Standing
from deployments.bootstrap.labelling import Labels, calibrated_by, report, used
from deployments.bootstrap.ledger import Ledger
from deployments.bootstrap.making import LocalMaker, Maker, ServerMaker, key_of_environment
from deployments.bootstrap.page import summary, write_page
from deployments.bootstrap.readings import AtItsWord, Labelled, Places, Reading
from deployments.bootstrap.refreshing import fresh_cells, set_aside
from deployments.bootstrap.results import Conclusion, conclude
from deployments.bootstrap.study import Study, begin
from deployments.known_names import known_of
from deployments.offline.rehearsal import find_policy
from deployments.settings import AppSettings, ServeConfig
from models.judging.judges import Judge
from models.weights.revisions import revision
from policies import Policy
from router.bootstrap.drift import Cell as Watched
from router.prompts.embedding import Embedder, MiniLMEmbedder
from router.prompts.scaling import Scaler
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import prompts_of
from router.types import Catalogue
from router.verification.score_calibration import save_calibration
from router.verification.score_reading import ScoreReading

FEATURES = 0.6  # weight against the embedding, the middle of what training tries


@dataclass(frozen=True)
class Options:
    """As of the command; see `triptych bootstrap --help`."""

    out: Path
    budget: Budget
    policy: str | None = None
    url: str | None = None
    prompts: str | None = None
    judge: str | None = None
    choose: Choose = "value"
    seeds: int = 2
    proof: float = 0.25
    until: float = UNTIL
    at_once: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Done:
    """conclusion;   ended: why the pictures ended;   verdict: in words;   page, plot, config: their files"""

    conclusion: Conclusion
    ended: str
    verdict: str
    page: Path
    plot: Path | None
    config: Path


class Bootstrap:
    """What is needed for a run, read and checked before anything is drawn."""

    def __init__(self, config: ServeConfig, options: Options, embedder: Embedder | None = None) -> None:
        """Raises `ConfigError`, `PolicyError`, `RequestError`, `ArtifactError`."""
        self.config, self.options = config, options
        self.settings: AppSettings = config.settings
        self.catalogue: Catalogue = catalogue_of(self.settings)
        known = known_of(self.catalogue, self.settings.safety.moderators)
        name = options.policy or self.settings.policies.default
        self.policy: Policy = find_policy(self.settings, known, name)
        self.judge: Judge
        self.judge, judged_by = judge_for(options.judge, self.policy, self.settings, self.catalogue)
        wanted: dict[str, Any] = {
            "policy": self.policy.name,
            "digest": self.policy.digest,
            "recipes": recipes_of(self.policy, self.catalogue),
            "prompts": prompts_for(options.prompts, self.settings, self.catalogue),
            "judge": self.judge.name,
            "judged_by": judged_by,
            "probability": self.judge.probability,
            "seeds": options.seeds,
            "proof": options.proof,
            "seed": options.seed,
        }
        self.study: Study = begin(options.out, wanted)
        self.ledger = Ledger(options.out)
        self.embedder = embedder or MiniLMEmbedder()

    async def run(self, tell: Callable[[Standing], None], note: Callable[[str], None]) -> str:
        """Make what the budget allows; why it ended."""
        embeddings = self.embedder.embed(self.study.prompts)
        prompts = prompts_of(self.study.prompts, embeddings, load_skills())
        inputs = Scaler.fit(prompts.features, FEATURES).join(prompts.embeddings, prompts.features)
        options = self.options
        async with AsyncExitStack() as stack:
            maker = await self._maker(stack)
            campaign = Campaign(
                self.study, self.ledger, maker, self.judge, options.budget, np.asarray(inputs), options.choose,
                options.at_once, options.until, tell, note,
            )  # fmt: skip
            return await campaign.run()

    async def refresh(
        self, drifted: Sequence[Watched], pictures: int, tell: Callable[[Standing], None], note: Callable[[str], None]
    ) -> str:
        """Draw what drifted anew, set aside what it was; what was done, in words. Raises `RequestError`."""
        cells = fresh_cells(self.study, self.ledger, drifted, pictures)
        there = sum(self.study.shot(cell) in self.ledger for cell in cells)
        budget = Budget(pictures=len(self.ledger) - there + len(cells))
        async with AsyncExitStack() as stack:
            maker = await self._maker(stack)
            campaign = Campaign(
                self.study, self.ledger, maker, self.judge, budget, np.zeros((0, 0)), "uniform", self.options.at_once,
                0.0, tell, note,
            )  # fmt: skip
            await campaign.refresh(cells)
        fresh = sum(self.study.shot(cell) in self.ledger for cell in cells)
        gone = set_aside(self.study, self.ledger, drifted, cells)
        return f"{fresh} fresh pictures stand for {gone} former ones of what drifted"

    def conclude(self, ended: str) -> Done:
        """Train, judge, and write everything down. Raises `ArtifactError` if there is too little."""
        out = self.options.out
        labels = Labels(out)
        reading = self._reading(labels)
        cards = cards_of(self.study.recipes, self.policy, self.catalogue)
        source = f"{len(self.ledger)} pictures of {len(self.study.prompts)} prompts, judged by {self.study.judge}"
        found = conclude(
            self.study, self.ledger, self.policy, reading, out, self.embedder, cards, source,
            lambda truth: f"\n## Is it worth it?\n\n{summary(truth, reading)}\n\nJudged: {reading.words}.\n",
        )  # fmt: skip
        self._calibrate(found, labels)
        page, plot = write_page(out, self.study, found, reading, ended)
        return Done(found, ended, summary(found.truth, reading), page, plot, self._served(out))

    def _reading(self, labels: Labels) -> Reading:
        judge = self.study.judge
        if used(labels):
            calibrated = calibrated_by(self.study, self.ledger, labels)
            return Labelled(judge, calibrated, sum(map(len, labels.by_picture().values())))
        return AtItsWord(judge) if self.study.probability else Places(judge)

    def _calibrate(self, found: Conclusion, labels: Labels) -> None:
        """With labels, and a judge that serves as a scorer: how its scores are read beside the new artefact."""
        judge = self.study.judge
        if not used(labels) or judge not in self.catalogue:
            return
        scored = [entry for entry in self.ledger.current if judge in entry.scores]
        scores, recipes = np.array([e.scores[judge] for e in scored]), [e.shot.recipe for e in scored]
        calibrated = calibrated_by(self.study, self.ledger, labels)
        told = report(self.study, self.ledger, labels)
        card = self.catalogue[judge]
        save_calibration(
            self.options.out / "artefact", found.artifact.digest, card, revision(card),
            calibrated.score_model(scores, recipes), ScoreReading().strength,
            {**told, "pictures": told["labels"]}, "labels of a bootstrap",
        )  # fmt: skip

    async def _maker(self, stack: AsyncExitStack) -> Maker:
        if self.options.url is None:
            from deployments.in_process import build_local

            settings = self.settings.model_copy(
                update={"feedback": self.settings.feedback.model_copy(update={"log": False})}
            )
            return LocalMaker(build_local(settings), self.policy.name)
        import httpx

        client = httpx.AsyncClient(base_url=self.options.url.rstrip("/"), timeout=None, headers=key_of_environment())
        await stack.enter_async_context(client)
        return ServerMaker(client, self.policy.name, self.study.key, self.study.digest)

    def _served(self, out: Path) -> Path:
        """A copy of the config that serves the new artefact."""
        file = out / "serve.yaml"
        given = yaml.safe_load(self.config.path.read_text(encoding="utf-8")) if self.config.path else {}
        application: Mapping[str, Any] = given["applications"][0]
        args = {**(application.get("args") or {}), "artifact": str((out / "artefact").resolve())}
        document = {**given, "applications": [{**application, "args": args}]}
        head = (
            "# The config that was measured, with the artefact that came of it. `triptych serve --config` reads this.\n"
        )
        file.write_text(head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return file

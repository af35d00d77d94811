"""A style that draws a prompt with the places of another one's picture: prompt-to-prompt.

Two pictures are made from one noise, that of a source prompt beside the one that is asked for
(https://arxiv.org/abs/2208.01626). Where each place looks among the words decides where things stand: so for a share of
the denoising, these attention maps are taken from the source's picture, while what the words add is the prompt's own.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from models.styles.attention import done_at, tokens_read
from router.errors import StepError
from router.types import ModelCard, Style

CROSS, SELF = 0.8, 0.0
"""The shares of the denoising in which a card that does not say it keeps the maps to words, and those within the
picture."""

MOST_PLACES = 32 * 32
"""Maps within the picture are kept in layers of so many places at most, as its authors do: they grow by the square."""

STEPPING = ("step", "scale_model_input")
"""What is asked of a scheduler in each step."""

Alignment = list[int | None]
"""For each token of a prompt, the place of its counterpart in the source; None for one that has none."""


def source_of(prompt: str, instead_of: str | Mapping[str, str]) -> str:
    """The source of a prompt: the one that a card names, or the prompt with words exchanged, all at once."""
    if isinstance(instead_of, str):
        return instead_of
    words = {word.strip().lower(): other for word, other in instead_of.items()}
    some = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    whole = rf"(?:(?<!\w)|(?=\W))(?:{some})(?:(?!\w)|(?<=\W))"  # no part of a word
    made = re.sub(whole, lambda said: words[said[0].lower()], prompt, flags=re.IGNORECASE)
    return prompt if made == prompt else " ".join(made.split())


def aligned(mine: Sequence[int], others: Sequence[int]) -> Alignment:
    """The counterparts of tokens: by the longest common subsequence, and between its members token for token, where as
    many stand in the place of as many."""
    n, m = len(mine), len(others)
    longest = [[0] * (m + 1) for _ in range(n + 1)]
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            same = longest[i + 1][j + 1] + 1 if mine[i] == others[j] else 0
            longest[i][j] = max(same, longest[i + 1][j], longest[i][j + 1])
    made: Alignment = [None] * n
    i = j = begun = other = 0  # the last two: where what has no counterpart yet begins
    while i < n or j < m:
        alike = i < n and j < m and mine[i] == others[j] and longest[i][j] == longest[i + 1][j + 1] + 1
        if alike:
            if i - begun == j - other:
                made[begun:i] = range(other, j)
            made[i] = j
            i, j = i + 1, j + 1
            begun, other = i, j
        elif j == m or (i < n and longest[i + 1][j] >= longest[i][j + 1]):
            i += 1
        else:
            j += 1
    if n - begun == m - other:
        made[begun:] = range(other, m)
    return made


@contextmanager
def kept(pipe: Any, style: Style, weight: float, card: ModelCard | None = None) -> Iterator[None]:
    """While inside, prompts are drawn with the attention maps of the style's source prompts.

    The source's picture is made beside the prompt's, from the same noise with the same negative prompt, guidance and
    scheduler, by further runs of the network; a prompt that is its own source needs none, and is drawn as ever.

    weight: how far maps go over into the source's, 0 to 1
    card: of the pipeline's model, if its prompts may be read in chunks or with weights
    Raises `StepError` for prompts that are given as embeddings, and for a source that is not read at the same length.
    """
    source = _Source(pipe, style, weight, card)
    layers = source.layers
    usual, before = pipe.encode_prompt, [layer.processor for layer in layers]
    own = vars(pipe).get("encode_prompt")
    signature = inspect.signature(usual)
    scheduler = pipe.scheduler
    steps = {name: getattr(scheduler, name) for name in STEPPING}
    owned = {name: vars(scheduler)[name] for name in steps if name in vars(scheduler)}

    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        read = tuple(usual(*args, **kwargs))
        source.begin(usual, signature.bind(*args, **kwargs).arguments, read)
        return read

    @functools.wraps(steps["scale_model_input"])
    def scale_model_input(sample: Any, *args: Any, **kwargs: Any) -> Any:
        source.start(sample)
        return steps["scale_model_input"](sample, *args, **kwargs)

    @functools.wraps(steps["step"])  # the pipeline looks at the signature
    def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        source.step(timestep, args, kwargs)
        return steps["step"](model_output, timestep, sample, *args, **kwargs)

    hook = pipe.unet.register_forward_pre_hook(source.denoise, with_kwargs=True)
    try:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(_Kept(processor, source))
        pipe.encode_prompt, scheduler.scale_model_input, scheduler.step = encode_prompt, scale_model_input, step
        yield
    finally:
        hook.remove()
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)
        for name in STEPPING:
            vars(scheduler).pop(name, None)
        vars(scheduler).update(owned)
        vars(pipe).pop("encode_prompt", None)
        if own is not None:
            pipe.encode_prompt = own


class _Source:
    """The picture of the source prompts, on its way beside the pipeline's own.

    lends, takes: whether maps are being read off this picture, or put into the other one
    """

    def __init__(self, pipe: Any, style: Style, weight: float, card: ModelCard | None) -> None:
        from diffusers.models.attention_processor import Attention

        self.pipe, self.style, self.weight, self.card = pipe, style, weight, card
        settings = style.settings
        self.until = {
            True: float(settings.get("cross_attention_until", CROSS)),  # type: ignore[arg-type]
            False: float(settings.get("self_attention_until", SELF)),  # type: ignore[arg-type]
        }
        self.layers = [
            layer
            for layer in pipe.unet.modules()
            if isinstance(layer, Attention) and self.until[bool(layer.is_cross_attention)] > 0
        ]
        self.lends = self.takes = False
        self.done = 0.0
        self.read: tuple[Any, Any] | None = None
        self.latents: Any = None

    def begin(self, encode: Callable[..., Any], given: Mapping[str, Any], read: Sequence[Any]) -> None:
        """A run begins: read the source prompts as the pipeline has read its own. given: to read them"""
        import torch

        self.lends = self.takes = False
        self.latents = self.read = None
        if given.get("prompt") is None:
            raise StepError(f"style {self.style.id!r} needs a prompt in words, and it is given as embeddings", "style")
        texts = {key: self._sources(given[key]) for key in ("prompt", "prompt_2") if given.get(key) is not None}
        if all(texts[key] == given[key] for key in texts):
            return
        made = tuple(encode(**{**given, **texts}))
        length = read[0].shape[1]
        if made[0].shape != read[0].shape:
            raise StepError(
                f"style {self.style.id!r}: its source is read at a length of {made[0].shape[1]} tokens, and the prompt "
                f"of {length}; shorten the longer one",
                "style",
            )
        self.read = made[0], (made[2] if len(made) > 2 else None)
        rows = [
            aligned(*(tokens_read(self.pipe, text, length, self.card) for text in pair))
            for pair in zip(_listed(given["prompt"]), _listed(texts["prompt"]), strict=True)
        ]
        repeats = len(made[0]) // len(rows)
        places = torch.tensor([[-1 if place is None else place for place in row] for row in rows])
        self.places = places.repeat_interleave(repeats, 0).to(made[0].device)

    def _sources(self, prompt: Any) -> Any:
        if isinstance(prompt, list):
            return [self._sources(one) for one in prompt]
        return source_of(prompt, self.style.settings["instead_of"])  # type: ignore[arg-type]

    def start(self, sample: Any) -> None:
        """Begin from the noise of the pipeline's own. sample: its latents, once for each pass, not scaled yet"""
        if self.read is not None and self.latents is None:
            self.latents = sample[: len(self.read[0])].clone()
            self.scheduler = copy.deepcopy(self.pipe.scheduler)
            for name in STEPPING:
                vars(self.scheduler).pop(name, None)

    def denoise(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the network runs for the prompts, as here given: run it for the sources, and note their maps."""
        import torch

        given = {**dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)), **kwargs}
        self.takes, self.done = False, done_at(self.pipe, given["timestep"])
        if self.read is None or self.done >= max(self.until.values()):
            return
        states, pooled = self.read
        sample = given["sample"].clone()  # of a network for inpainting, further channels stay
        latents = torch.cat([self.latents] * (len(sample) // len(states)))
        sample[:, : latents.shape[1]] = self.scheduler.scale_model_input(latents, given["timestep"])
        given |= {"sample": sample, "encoder_hidden_states": _with_last(given["encoder_hidden_states"], states)}
        if pooled is not None:
            added = given["added_cond_kwargs"]
            given["added_cond_kwargs"] = {**added, "text_embeds": _with_last(added["text_embeds"], pooled)}
        for layer in self.layers:
            layer.processor.maps.clear()
        self.lends = True
        try:
            self.output = network.forward(**given)[0]
        finally:
            self.lends = False
        self.takes = True

    def step(self, timestep: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Go on as the pipeline is about to, with the same noise where its scheduler adds some."""
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

        if not self.takes:
            return
        output = self.output
        if self.pipe.do_classifier_free_guidance:
            away, towards = output.chunk(2)
            output = away + self.pipe.guidance_scale * (towards - away)
            if (rescale := getattr(self.pipe, "guidance_rescale", 0.0)) > 0:
                output = rescale_noise_cfg(output, towards, guidance_rescale=rescale)
        given = {**kwargs, "return_dict": False}
        if isinstance(noise := given.get("generator"), list):
            given["generator"] = [one.clone_state() for one in noise]
        elif noise is not None:
            given["generator"] = noise.clone_state()
        self.latents = self.scheduler.step(output, timestep, self.latents, *args, **given)[0]

    def exchanged(self, probabilities: Any, maps: deque[Any], cross: bool) -> Any:
        """Maps (rows, heads, places, read) as they are to be used; of the source's picture, they are noted in `maps`,
        of the prompt's, its last rows get those of the source."""
        n = len(self.places)
        mine = probabilities[-n:]
        if self.lends:
            maps.append(mine.clone())
            return probabilities
        other = maps.popleft()
        if cross:
            places = self.places[:, None, None, :].expand_as(mine)
            other = mine.where(places < 0, other.gather(-1, places.clamp(min=0)))
        probabilities[-n:] = mine.lerp(other, self.weight)
        return probabilities


class _Kept:
    """Attention of one layer, computed step by step while maps are exchanged, else as before. maps: of the source, one
    for each window of the picture"""

    def __init__(self, usual: Any, source: _Source) -> None:
        self.usual, self.source = usual, source
        self.maps: deque[Any] = deque()

    def __call__(
        self,
        attn: Any,
        hidden_states: Any,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        temb: Any = None,
    ) -> Any:
        source, cross = self.source, bool(attn.is_cross_attention)
        exchanges = (source.lends or source.takes) and source.done < source.until[cross]
        if not exchanges or not (cross or hidden_states.shape[1] <= MOST_PLACES):
            return self.usual(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mask = attn.prepare_attention_mask(attention_mask, read.shape[1], len(read))
        query, key, value = (
            attn.head_to_batch_dim(part) for part in (attn.to_q(hidden_states), attn.to_k(read), attn.to_v(read))
        )
        scores = attn.get_attention_scores(query, key, mask).unflatten(0, (len(read), -1))
        used = source.exchanged(scores, self.maps, cross).flatten(0, 1)
        made = attn.to_out[0](attn.batch_to_head_dim(used @ value))
        return attn.to_out[1](made) / attn.rescale_output_factor


def _listed(prompt: Any) -> list[str]:
    return [prompt] if isinstance(prompt, str) else list(prompt)


def _with_last(whole: Any, last: Any) -> Any:
    """A tensor whose last rows are others."""
    import torch

    return torch.cat([whole[: len(whole) - len(last)], last.to(whole)])

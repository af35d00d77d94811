"""What other programs send: which fields and values pass, which are named in our words, and what prompts become."""

import json
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.api.wire.fields import SYNONYMS, WITHOUT
from deployments.api.wire.prompt_texts import cleaned, foreign_syntax
from deployments.api.wire.requests import ImageRequest, parse_body, parse_request, to_request
from deployments.settings import Limits
from router.errors import RequestError, did_you_mean
from router.types import GenerationRequest

LIMITS = Limits(aliases={"gpt-image-1": "auto", "dall-e-3": "best"})


def parsed(**body: Any) -> ImageRequest:
    """A request about a circle, with what a test adds."""
    return parse_request({"prompt": "a circle", **body}, LIMITS)


def asked(**body: Any) -> GenerationRequest:
    """What the router gets of it."""
    return to_request(parsed(**body), LIMITS)


@pytest.mark.parametrize("model", ["auto", "sdxl", "best", "studio/premium", "gpt-image-1"])
@pytest.mark.parametrize(
    "sent",
    [
        {"quality": "auto"}, {"quality": "standard"}, {"quality": "medium"}, {"quality": ""}, {"style": "natural"},
        {"style": "auto"}, {"style": ""}, {"background": "auto"}, {"background": "opaque"}, {"moderation": "auto"},
        {"moderation": "low"}, {"response_format": "b64_json"}, {"output_format": "png"}, {"partial_images": 0},
        {"output_compression": 100}, {"user": ""}, {"stream": False}, {"size": ""},
    ],
)  # fmt: skip
def test_neutral_values_pass_beside_any_model(model: str, sent: dict[str, Any]) -> None:
    """What clients always send and mean nothing by is taken without a word, whatever model is named."""
    assert parsed(model=model, **sent).warnings == ()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"quality": "high"}, "quality: 'high' changes nothing beside model 'sdxl'"),
        ({"quality": "HD"}, "quality: 'hd' changes nothing"),
        ({"quality": "low"}, "quality: 'low' changes nothing"),
        ({"quality": "max"}, "quality: 'max' changes nothing"),
        ({"style": "vivid"}, "style: 'vivid' changes nothing here; describe the style in the prompt"),
        ({"style": "ghibli"}, "style: 'ghibli'"),
    ],
)
def test_a_value_that_changes_nothing_is_a_warning(sent: dict[str, Any], words: str) -> None:
    """A value that means something elsewhere and nothing here passes, and the answer says so."""
    (warning,) = parsed(model="sdxl", **sent).warnings
    assert words in warning


@pytest.mark.parametrize(("letters", "cut"), [(57, False), (58, False), (59, True), (500, True)])
def test_a_value_is_repeated_up_to_sixty_characters(letters: int, cut: bool) -> None:
    """With its quotes; of a longer one there are sixty, the last three are dots."""
    (warning,) = parsed(model="sdxl", style="x" * letters).warnings
    said = warning.removeprefix("style: ").partition(" changes nothing")[0]
    assert said == ("'" + "x" * 56 + "..." if cut else "'" + "x" * letters + "'")


def test_quality_chooses_within_an_alias_of_auto() -> None:
    """Beside an alias that stands for auto, `quality` picks the policy; beside another, the alias decides."""
    assert asked(model="gpt-image-1", quality="low").target == "fast"
    assert asked(model="dall-e-3", quality="standard").target == "best"
    assert parsed(model="dall-e-3", quality="hd").warnings == ()
    assert asked(model="DALL-E-3").target == "best"
    assert asked(model="sdxl", quality="hd").target == "sdxl"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_inference_steps", 20, "it is called 'steps' here"),
        ("numInferenceSteps", 20, "it is called 'steps' here"),
        ("cfg_scale", 7, "'guidance_scale'"),
        ("num_images_per_prompt", 2, "'n'"),
        ("negative", "text", "'negative_prompt'"),
        ("negativePrompt", "text", "it is written 'negative_prompt' here"),
        ("Seed", 3, "it is written 'seed' here"),
        ("aspect_ratio", "16:9", '"size": "512x512"'),
        ("width", 640, '"size": "640x640"'),
        ("sampler", "euler", "recipe of a policy"),
        ("scheduler", "ddim", "recipe of a policy"),
        ("init_image", "data:", "it is called 'image' here"),
        ("image[]", "data:", "it is written 'image' here"),
        ("images", [], "it is called 'image' here"),
        ("denoising_strength", 0.5, "it is called 'strength' here"),
        ("controlnet", {}, "control maps belong to recipes"),
        ("svg", {}, "vector"),
        ("frame_count", 3, "animations"),
    ],
)
def test_a_synonym_answers_before_string_distance(field: str, value: Any, words: str) -> None:
    """A field that other programs have is refused with its name here, or with why there is none."""
    with pytest.raises(RequestError) as refused:
        parsed(**{field: value})
    assert refused.value.param == field
    assert words in refused.value.message
    assert "did you mean" not in refused.value.message


def test_both_sides_of_a_size_are_put_together() -> None:
    """Who sends width and height is shown the size of both."""
    with pytest.raises(RequestError, match='"size": "640x384"'):
        parsed(width=640, height=384)


def test_every_synonym_leads_to_a_field() -> None:
    """The tables name fields that exist, no field of ours, and no name twice."""
    names = [name for words in (*SYNONYMS.values(), *WITHOUT.values()) for name in words.split()]
    assert len(names) == len(set(names))
    assert set(SYNONYMS) <= set(ImageRequest.model_fields)
    assert not set(names) & set(ImageRequest.model_fields)


def test_a_list_of_names_is_never_cut_in_silence() -> None:
    """Where not all names fit, the message says how many are left; the nearest is found in any case of letters."""
    names = [f"recipe-{k:02}" for k in range(30)]
    assert did_you_mean("x", names).endswith("and 10 more")
    assert did_you_mean("FLUX", ["flux", "sdxl"]) == "; did you mean 'flux'?"


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (b'{"prompt": "a",}', "invalid_json", "line 1, column 1"),
        (b'{"prompt": "a"\n "n": 2}', "invalid_json", "line 2, column 2"),
        (b"{'prompt': 1}", "invalid_json", "line 1, column 2"),
        ('{"prompt": "größe"}'.encode("latin-1"), "unsupported_encoding", "byte 14 is 0xf6"),
        (b'{"prompt": "a", "n": 1, "prompt": "b"}', "duplicate_parameter", "prompt: it is given twice"),
        (b'{"prompt": "a", "turns": [{"bar": 1, "bar": 2}]}', "duplicate_parameter", "bar: it is given twice"),
        (b"[" * 100_000, "invalid_json", "nested too deeply"),
        (b'{"seed": ' + b"9" * 9999 + b"}", "invalid_json", "too many digits"),
    ],
)
def test_broken_json_says_where(raw: bytes, code: str, words: str) -> None:
    """Syntax is refused with line and column, an encoding with the byte, a key given twice with its name."""
    with pytest.raises(RequestError) as refused:
        parse_body(raw, LIMITS)
    assert refused.value.code == code
    assert words in refused.value.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_encodings_are_read(encoding: str) -> None:
    """UTF-8, 16 and 32, with a byte order mark or without, are one request."""
    assert parse_body('{"prompt": "größe"}'.encode(encoding), LIMITS).prompt == "größe"


def test_numbers_are_taken_for_what_they_are() -> None:
    """42.0 is a whole number, and a handle's numpy values are numbers; 42.5, true and "42" are none."""
    assert parse_body(b'{"prompt": "a", "seed": 42.0, "n": 2.0, "steps": 8e0}', LIMITS).seed == 42
    body = {"seed": np.int64(3), "n": np.uint8(2), "guidance_scale": np.float32(2.5), "degrade": np.bool_(False)}
    wire = parsed(**body, tags=np.array(["print"]), prompt=np.str_("a ring"))
    assert (wire.seed, wire.n, wire.guidance_scale, wire.degrade, wire.tags) == (3, 2, 2.5, False, ("print",))
    assert type(wire.seed) is int
    for wrong in (42.5, True, "42", float("inf"), np.float64(1.5), np.bool_(True)):
        with pytest.raises(RequestError, match="seed"):
            parsed(seed=wrong)


def test_seed_0_is_a_seed() -> None:
    """`seed: 0` is kept, not taken for a missing one, and so is 0.0."""
    assert [asked(seed=zero).seed for zero in (0, 0.0, 0)] == [0, 0, 0]


def test_degrade_false_reaches_the_router() -> None:
    """Who does not want a lesser recipe under load is not given one."""
    assert (asked(degrade=False).degradable, asked().degradable) == (False, True)


def test_deterministic_reaches_the_router() -> None:
    """Who wants the bytes of a picture made alone says so; otherwise it may be made with others."""
    assert (asked(deterministic=True).deterministic, asked().deterministic) == (True, False)


# ------------------------------------------------------------------------------------------------------------ prompts


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\u200bred circle", "ared circle"),
        ("\ufeffa red circle", "a red circle"),
        ("a \u202ered\u202c circle\u200e", "a red circle"),
        ("a\u00ad red\u2060 circle\U000e0041", "a red circle"),
        ("a red\x07 circle\x1b", "a red circle"),
        ("cafe\u0301", "café"),
        ("a\u2028red circle", "a red circle"),
        ("👩\u200d🚀 on the moon", "👩\u200d🚀 on the moon"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("plain", "plain"),
    ],
)
def test_prompts_lose_what_nobody_sees(text: str, kept: str) -> None:
    """Invisible characters go and accents are composed, with a warning; joiners that join stay."""
    for field in ("prompt", "negative_prompt"):
        wire = parsed(**{field: text})
        assert getattr(wire, field) == kept
        silent = text == kept or "\u2028" in text
        assert silent is not any(warning.startswith(f"{field}: ") for warning in wire.warnings)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u200e", "\u3164", "\u2800\u2800", "\u0301", "\u00ad\n\t"])
def test_a_prompt_of_nothing_visible_is_empty(text: str) -> None:
    """What no reader can see is no prompt."""
    with pytest.raises(RequestError, match="empty"):
        parsed(prompt=text)


@given(st.text(max_size=60))
def test_a_cleaned_prompt_is_clean(text: str) -> None:
    """Of any text, what is left is composed and without format characters but joiners; if unchanged, without a word."""
    kept, warnings = cleaned(text, "prompt")
    assert unicodedata.is_normalized("NFC", kept) or not kept
    assert not [ch for ch in kept if unicodedata.category(ch) == "Cf" and ch not in "\u200c\u200d"]
    if kept == text:
        assert warnings == []


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a castle <lora:detail:1>", "'<lora:detail:1>' looks like an extra network"),
        ("a castle <LoRA:detail:0.7> at night", "an extra network"),
        ("a (red:1.3) ball", "'(red:1.3)' looks like a weight"),
        ("a (large red: .8) ball", "a weight"),
        ("a ((red)) ball", "a weight"),
        ("a red++ ball", "a weight"),
        ("a (dark red)+ ball", "a weight"),
        ("a cat::2 a dog::-1", "a weight"),
        ("a cat BREAK a dog", "'BREAK' looks like a break"),
        ("a castle --ar 16:9", "'--ar 16:9' looks like a parameter"),
        ("a castle —no people", "a parameter"),
        ("a castle --v 6.1 --stylize 200", "a parameter"),
        ("a {red|blue} ball", "a choice of words"),
        ("a __colour__ ball", "a choice of words"),
        ("a [red|blue] ball", "alternating words"),
        ("a castle, embedding:easynegative", "an embedding"),
        ("a cat AND a dog", "a combination of prompts"),
    ],
)
def test_syntax_of_other_programs_is_named(prompt: str, named: str) -> None:
    """What other programs would obey and models here read as letters is a warning that names it."""
    assert any(named in warning and "letters" in warning for warning in parsed(prompt=prompt).warnings)


@pytest.mark.parametrize(
    "prompt",
    [
        "a red circle (on the left) and a blue square", "a clock at (10:30)", "a ratio of 16:9", "R&D AND SALES",
        "code in C++",
        "a sign [draft], with a note: 3 items", "twenty-one -- or more -- birds", "a heart <3 and an arrow ->",
        "don't BREAKFAST alone", "a well-known, state-of-the-art café", "x{1}",
    ],
)  # fmt: skip
def test_plain_prose_is_no_syntax(prompt: str) -> None:
    """Brackets, colons and dashes of ordinary writing are not taken for another program's."""
    assert foreign_syntax(prompt, "prompt") == []


# ------------------------------------------------------------------------------------------------- no field is lost

VALUES: dict[str, Any] = {
    "prompt": "a ring", "model": "best", "n": 2, "size": "64x32", "quality": "high", "background": "opaque",
    "output_format": "webp", "output_compression": 50, "moderation": "low", "response_format": "bytes",
    "stream": True, "partial_images": 1, "user": "ann", "safety_identifier": "ann", "negative_prompt": "text",
    "seed": 7, "steps": 9, "guidance_scale": 2.0, "latency_budget_s": 3.0, "max_cost_usd": 0.1, "recipe": "duel",
    "turns": [{"recipe": "a", "bar": 0.5, "slope": 1.0, "offset": 0.0, "chance": 0.5}], "tags": ["print"],
    "degrade": False, "style": "vivid",
}  # fmt: skip
SHOWN_IN_THE_ANSWER = {
    "background",
    "output_format",
    "output_compression",
    "response_format",
    "stream",
    "partial_images",
}


@given(st.sets(st.sampled_from(sorted({*VALUES, *(w for words in SYNONYMS.values() for w in words.split())}))))
def test_every_field_is_used_refused_or_warned_of(fields: set[str]) -> None:
    """Whatever combination of fields comes: each changes the router's request or the answer's form, or is spoken of."""
    body: dict[str, Any] = {"prompt": "a circle", "seed": 0, **{field: VALUES.get(field, 1) for field in fields}}
    try:
        wire = parse_request(body, LIMITS)
    except RequestError as error:
        refused = error.param
    else:
        refused = None
    if refused is not None:
        assert refused in body
        return
    request = to_request(wire, LIMITS)
    for field in fields & VALUES.keys():
        without = {key: value for key, value in body.items() if key != field or key in ("prompt",)}
        without |= {"prompt": "a circle"} if field == "prompt" else {"seed": 0} if field == "seed" else {}
        try:
            bare = parse_request(without, LIMITS)
        except RequestError:
            continue  # another field needs it
        changed = to_request(bare, LIMITS) != request or wire.warnings != bare.warnings
        shown = field in SHOWN_IN_THE_ANSWER and (getattr(bare, field) != getattr(wire, field) or field == "background")
        doubled = field == "safety_identifier" and "user" in fields
        assert changed or shown or doubled, field


def test_null_is_not_given_for_every_field() -> None:
    """A body with null for every field but the prompt, ours and others', equals one with the prompt alone."""
    others = [word for words in (*SYNONYMS.values(), *WITHOUT.values()) for word in words.split()]
    nulls = dict.fromkeys([*(set(ImageRequest.model_fields) - {"prompt"}), *others, "style"])
    raw = json.dumps({"prompt": "a", **nulls}).encode()
    assert parse_body(raw, LIMITS) == parse_request({"prompt": "a"}, LIMITS)

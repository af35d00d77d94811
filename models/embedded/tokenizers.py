"""Tokenizers in which every word of the world is one token: CLIP's byte-pair kind and T5's unigram kind.

Words outside the world fall into letters, so that a free prompt is still read, only not understood.
"""

import json
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer, T5TokenizerFast

from models.embedded.captions import vocabulary

CLIP_LENGTH = 32
"""Tokens a CLIP encoder reads, with start and end; the longest caption of the world has 22 words."""
T5_LENGTH = 24
"""Tokens FLUX's T5 reads, with the end: pass it as `max_sequence_length`."""

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_ALPHABET = string.ascii_lowercase + string.digits + string.punctuation


_STORED = Path(__file__).parent / "tokenizer.json"


def clip_tokenizer() -> CLIPTokenizer:
    """The CLIP tokenizer of all embedded models, in which each word of the world is one token."""
    stored = json.loads(_STORED.read_text(encoding="utf-8"))
    merges = [tuple(pair) for pair in stored["merges"]]
    return CLIPTokenizer(vocab=stored["vocab"], merges=merges, model_max_length=CLIP_LENGTH)


def store_clip_tokenizer() -> None:
    """Train the tokenizer on the world's vocabulary and store it; needed once, and when the vocabulary grows.

    It is stored since `BpeTrainer` breaks ties at random: trained anew in each process, it would give some words other
    numbers than those that a model has learned.
    """
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_EOS))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=[_BOS, _EOS],
        initial_alphabet=list(_ALPHABET),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    raw.train_from_iterator([" ".join(vocabulary()), " ".join(_ALPHABET)], trainer)
    model = json.loads(raw.to_str())["model"]
    kept = {"vocab": model["vocab"], "merges": model["merges"]}
    _STORED.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")


def t5_tokenizer() -> T5TokenizerFast:
    """A T5 tokenizer whose pieces are the words of the world, then letters at a low score."""
    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁" + word, -1.0) for word in vocabulary() if word != ","]
    known = {piece for piece, _ in pieces}
    pieces += [(piece, -20.0) for piece in ("▁", *_ALPHABET) if piece not in known]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


class Encoder:
    """Captions of the world to token ids, by a table of words: what the tokenizer gives, a hundred times faster."""

    def __init__(self, tokenizer: CLIPTokenizer | T5TokenizerFast) -> None:
        clip = isinstance(tokenizer, CLIPTokenizer)
        self.length = CLIP_LENGTH if clip else T5_LENGTH
        self.start = [tokenizer.bos_token_id] if clip else []
        self.end, self.pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        self.table: dict[str, int] = {}
        for word in vocabulary():
            ids = tokenizer(word, add_special_tokens=False)["input_ids"]
            if len(ids) == 1:
                self.table[word] = ids[0]
            elif ids[0] == tokenizer.convert_tokens_to_ids("▁") and len(ids) == 2:
                self.table[word] = ids[1]
            else:
                raise ValueError(f"the tokenizer splits the word {word!r} into {ids}")

    def __call__(self, captions: list[str]) -> Tensor:
        """int64 (N, length), padded. Raises KeyError for a word outside the world."""
        rows = []
        for text in captions:
            ids = [*self.start, *(self.table[word] for word in text.replace(",", " ,").split()), self.end]
            rows.append(ids + [self.pad] * (self.length - len(ids)))
        return torch.tensor(rows)

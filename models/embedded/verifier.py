"""The verifier: a learned judge of whether a picture shows what its prompt says.

It stands where a reward model stands in production: it sees pixels and words, never the scene, so best-of-n and
escalation can trust it exactly as far as its published accuracy. Picture patches and words go through one small
transformer together, for a two-tower model counts and relates badly. Beside the verdict it says of each claim of the
prompt whether it holds, as rich human feedback does (https://arxiv.org/abs/2312.10240): one bit a picture teaches
little.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.embedded.captions import vocabulary
from models.embedded.checker import CLAIMS
from models.embedded.world import SIZE

WORDS = 26
"""Words read of a prompt; what follows is not judged."""


@dataclass(frozen=True)
class VerifierConfig:
    """Sizes, and the words it knows: index 0 pads, 1 is any other word."""

    width: int = 96
    layers: int = 4
    heads: int = 4
    words: tuple[str, ...] = ()


class Residual(nn.Module):
    """A second look at the same scale; it starts as the identity, so that a trained stem can be deepened."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv = nn.Conv2d(width, width, 3, 1, 1)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (N, width, H, W)."""
        return x + self.conv(nn.functional.silu(self.norm(x)))


class Verifier(nn.Module):
    """Pictures and prompts to logits; use `score` for probabilities."""

    def __init__(self, config: VerifierConfig) -> None:
        super().__init__()
        self.config = config
        self.index = {word: i + 2 for i, word in enumerate(config.words)}
        width = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 4, 2, 1),
            nn.SiLU(),
            Residual(24),
            nn.Conv2d(24, 48, 4, 2, 1),
            nn.GroupNorm(8, 48),
            nn.SiLU(),
            nn.Conv2d(48, 48, 3, 1, 1),
            nn.GroupNorm(8, 48),
            nn.SiLU(),
            Residual(48),
            Residual(48),
            nn.Conv2d(48, width, 4, 2, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            Residual(width),
        )
        self.places = nn.Parameter(torch.randn(64 + WORDS + 1, width) * 0.02)
        self.embed = nn.Embedding(len(config.words) + 2, width)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.verdict_token = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.mix = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.verdict = nn.Linear(width, 1 + len(CLAIMS))

    def read(self, prompts: list[str]) -> Tensor:
        """Prompts to int64 (N, WORDS); words it does not know share one number."""
        rows = []
        for prompt in prompts:
            words = re.findall(r"[a-z0-9]+|,", prompt.lower())
            ids = [self.index.get(word, 1) for word in words[:WORDS]]
            rows.append(ids + [0] * (WORDS - len(ids)))
        return torch.tensor(rows)

    def look(self, pixels: Tensor) -> Tensor:
        """Pictures float (N, 3, 64, 64) in -1..1 to patch states (N, 64, width)."""
        return self.stem(pixels).flatten(2).transpose(1, 2)

    def forward(self, patches: Tensor, words: Tensor) -> Tensor:
        """Logits from `look` and `read`, (N, 1 + claims): that the picture is right, then that each claim holds."""
        start = self.verdict_token.expand(len(patches), 1, -1)
        tokens = torch.cat((start, patches, self.embed(words)), 1) + self.places
        padded = torch.cat((torch.zeros(len(words), 65, dtype=torch.bool), words == 0), 1)
        return self.verdict(self.mix(tokens, src_key_padding_mask=padded)[:, 0])

    @torch.no_grad()
    def score(self, images: NDArray[np.uint8], prompts: list[str]) -> NDArray[np.float64]:
        """Probabilities 0..1, (N,), that each picture uint8 (N, H, W, 3) shows its prompt.

        Other sizes than 64x64 are averaged down (or repeated) to it. Raises ValueError when the numbers differ.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures for {len(prompts)} prompts; give one prompt for each picture")
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        if pixels.shape[2:] != (SIZE, SIZE):
            pixels = nn.functional.interpolate(pixels, (SIZE, SIZE), mode="area")
        return np.asarray(torch.sigmoid(self(self.look(pixels / 127.5 - 1), self.read(prompts))[:, 0]).double().numpy())


def new_verifier() -> Verifier:
    """An untrained verifier that knows the words of the world."""
    return Verifier(VerifierConfig(words=vocabulary())).eval()


def save_verifier(model: Verifier, folder: Path) -> None:
    """Write config.json and model.safetensors (fp16)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(model.config), indent=1) + "\n")
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, str(folder / "model.safetensors"))


def load_verifier(path: str | Path) -> Verifier:
    """The verifier of a folder, in float32. Raises FileNotFoundError naming what is missing."""
    folder = Path(path)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name} is missing: `python -m models.embedded.train verifier` writes it")
    stored = json.loads((folder / "config.json").read_text())
    model = Verifier(VerifierConfig(**{**stored, "words": tuple(stored["words"])}))
    model.load_state_dict({k: v.float() for k, v in load_file(str(folder / "model.safetensors")).items()})
    return model.eval()

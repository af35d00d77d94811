"""One training run: a resumable loop over a loss, with raw and averaged weights kept side by side.

A run lives in one folder: `state.safetensors` (raw weights, EMA weights, Adam moments; counters in its metadata) and
`log.jsonl`. There is no pickle. A run is stopped by time and resumed by the same command; the learning rate is
constant after a warm-up and falls over the last part of an invocation, so each invocation ends in usable weights.
"""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

EMA_CEILING = 0.999
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic iteration, of which five are taken."""
COOLDOWN = 0.3
"""The share of an invocation in which the learning rate falls to a twentieth."""


@dataclass
class Counters:
    """What a run has done so far, over all invocations."""

    step: int = 0
    samples: int = 0
    cpu_s: float = 0.0
    loss: float = 0.0


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but orthogonalised in float32 and all matrices of one
    shape at once: torch does it in bfloat16, which CPUs without such instructions emulate some 17 times slower.
    """

    def __init__(self, params: list[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; the state of a parameter is its `momentum_buffer`."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append((p, p.grad))
            for shape, alike in by_shape.items():
                updates = []
                for p, grad in alike:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    buffer.lerp_(grad, 1 - group["momentum"])
                    updates.append(grad.lerp(buffer, group["momentum"]))
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                for (p, _), update in zip(alike, orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearly orthogonal matrices next to (N, rows, columns), by Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@dataclass
class Run:
    """Modules under training by name, and where their state is kept.

    Matrices whose name holds one of `muon` are updated by Muon (https://arxiv.org/abs/2502.16982) at `muon_rate` times
    the learning rate, the rest by AdamW.
    """

    folder: Path
    modules: nn.ModuleDict
    lr: float = 1.5e-3
    batch: int = 64
    seed: int = 0
    weight_decay: float = 0.01
    muon: tuple[str, ...] = ()
    muon_rate: float = 1.0
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        named = list(self.modules.named_parameters())
        self.names = [name for name, _ in named]
        self.first = self.counters.step
        self.raw: list[Tensor] = [p for _, p in named]
        self.ema = [p.detach().clone() for p in self.raw]
        matrix = [p.ndim == 2 and any(part in name for part in self.muon) for name, p in named]
        matrices = [p for p, chosen in zip(self.raw, matrix, strict=True) if chosen]
        others = [p for p, chosen in zip(self.raw, matrix, strict=True) if not chosen]
        decay = self.weight_decay
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=self.lr, betas=(0.9, 0.99), weight_decay=decay, fused=True)
        ]
        if matrices:
            self.optimizers.append(Muon(matrices, lr=self.lr, weight_decay=decay))

    def _moments(self, raw: Tensor) -> dict[str, Tensor]:
        """What the optimizers remember of one parameter."""
        return next((optimizer.state[raw] for optimizer in self.optimizers if raw in optimizer.state), {})

    @property
    def path(self) -> Path:
        """The file that holds the whole state."""
        return self.folder / "state.safetensors"

    def save(self) -> None:
        """Write the state beside the old one, then replace it, so that a kill never leaves half a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for name, raw, ema in zip(self.names, self.raw, self.ema, strict=True):
            parts = {"raw": raw.detach(), "ema": ema} | self._moments(raw)
            tensors.update({f"{part}/{name}": t.contiguous() for part, t in parts.items()})
        metadata = {"counters": json.dumps(self.counters.__dict__), "seed": str(self.seed)}
        save_file(tensors, str(self.path.with_suffix(".part")), metadata)
        os.replace(self.path.with_suffix(".part"), self.path)

    def load(self) -> bool:
        """Take up the stored state; False when there is none. Raises ValueError when it is of another model."""
        if not self.path.exists():
            return False
        with safe_open(str(self.path), "pt") as stored:
            keys = set(stored.keys())
            missing = {f"raw/{name}" for name in self.names} - keys
            if missing:
                raise ValueError(
                    f"{self.path} is of another model (no {sorted(missing)[0]}); move it away to start anew"
                )
            with torch.no_grad():
                for name, raw, ema in zip(self.names, self.raw, self.ema, strict=True):
                    raw.copy_(stored.get_tensor(f"raw/{name}"))
                    ema.copy_(stored.get_tensor(f"ema/{name}"))
                    parts = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")
                    moments = {part: stored.get_tensor(f"{part}/{name}") for part in parts if f"{part}/{name}" in keys}
                    if moments:
                        of_matrix = len(self.optimizers) - 1 if "momentum_buffer" in moments else 0
                        self.optimizers[of_matrix].state[raw] = moments
            self.counters = Counters(**json.loads(stored.metadata()["counters"]))
        return True

    @torch.no_grad()
    def load_averaged(self) -> bool:
        """Put the EMA weights into the modules (for export and evaluation); False when nothing is stored."""
        if not self.load():
            return False
        for raw, ema in zip(self.raw, self.ema, strict=True):
            raw.copy_(ema)
        return True

    def rate(self, share: float) -> float:
        """The learning rate when `share` (0..1) of this invocation is over."""
        warm = min(1.0, (self.counters.step - self.first + 1) / 200)
        return self.lr * warm * min(1.0, 0.05 + 0.95 * max(0.0, 1 - share) / COOLDOWN)

    def step(self, loss: Tensor, share: float) -> None:
        """One update of raw and averaged weights from a loss over `batch` samples."""
        for optimizer, factor in zip(self.optimizers, (1.0, self.muon_rate), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = factor * self.rate(share)
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.raw, 1.0, foreach=True)
        for optimizer in self.optimizers:
            optimizer.step()
        n = self.counters.step
        decay = min(EMA_CEILING, (1 + n) / (10 + n))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.raw, 1 - decay)
        self.counters.step += 1
        self.counters.samples += self.batch
        value = float(loss.detach())
        self.counters.loss = value if n == 0 else 0.98 * self.counters.loss + 0.02 * value


def fit(
    run: Run,
    loss: Callable[[random.Random], Tensor],
    minutes: float,
    steps: int | None = None,
    save_every_s: float = 150,
    on_save: Callable[[], None] | None = None,
) -> Counters:
    """Train until `minutes` of wall time (or `steps` updates of this invocation) are over, resuming what is stored.

    `loss(rng)` draws its own batch. Seeds depend on the step reached, so a resumed run does not repeat its batches.
    """
    run.load()
    run.first = run.counters.step
    rng = random.Random(f"{run.seed} {run.counters.step}")
    torch.manual_seed(run.seed * 1_000_003 + run.counters.step)
    start, saved, cpu = time.monotonic(), time.monotonic(), time.process_time()
    first = run.counters.step
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(run.folder.name, total=1.0)
        share = 0.0
        while share < 1.0:
            share = (time.monotonic() - start) / (60 * minutes)
            if steps is not None:
                share = max(share, (run.counters.step - first + 1) / steps)
            run.step(loss(rng), min(share, 1.0))
            if run.counters.step % 20 == 0:
                described = f"{run.folder.name} {run.counters.samples:,} samples, loss {run.counters.loss:.4f}"
                bar.update(task, completed=share, description=described)
            if share >= 1.0 or time.monotonic() - saved > save_every_s:
                run.counters.cpu_s += time.process_time() - cpu
                cpu, saved = time.process_time(), time.monotonic()
                run.save()
                with (run.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(run.counters.__dict__) + "\n")
                if on_save:
                    on_save()
    return run.counters

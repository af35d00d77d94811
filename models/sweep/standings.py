"""What was measured of each way, which of them go on, and which is chosen. No model is needed here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

DOUBT = 0.25
"""The spread of differences in quality that is assumed until some have been seen; so much counts for `SEEN` prompts."""
SEEN = 4
UNLIKE = 0.1
"""Pictures whose SSIM is so far below 1 may differ in quality as much as that; those that are more alike, in proportion
less, since whoever looks at them sees nearly the same."""
LEAST_DOUBT = 0.02


@dataclass(frozen=True)
class Look:
    """One picture of a way. seconds: to draw it;   score: of the scorer, 0..1;   ssim, psnr: to the present way's
    picture of the same prompt and seed;   memory_gb: 10^9 bytes at most, 0 if unknown"""

    seconds: float
    score: float
    ssim: float
    psnr: float
    memory_gb: float = 0.0


@dataclass(frozen=True)
class Standing:
    """A way after so many prompts.

    seconds: median of a picture;   quality: mean score;   change: mean difference to the present way on the same
    prompts and seeds;   doubt: standard error of that;   memory_gb: the largest
    """

    way: str
    prompts: int
    seconds: float
    quality: float
    change: float
    doubt: float
    ssim: float
    psnr: float
    memory_gb: float


@dataclass(frozen=True)
class Aim:
    """What is looked for: with `latency_s`, the best picture in that time; without, the fastest that is as good.

    within: what may be lost of the mean score of the present way, 0..1
    alike: without a latency, the mean SSIM to the present way's pictures that must be kept. A scorer sees whether a
    prompt is followed and hardly how clean a picture is; what is nearly the same picture cannot have lost that, either
    """

    latency_s: float | None = None
    within: float = 0.01
    alike: float = 0.0

    def promise(self, one: Standing, now_s: float) -> float:
        """How much is to be hoped of a way, for ranking: what it spares, times the chance that it is good enough.

        now_s: seconds of the present way. Without a latency, spared is the logarithm of how many times faster it is;
        with one, a way within it promises what it may be as good as (a standard error above what was seen).
        """
        if self.latency_s is not None:
            return one.change + one.doubt if one.seconds <= 1.1 * self.latency_s else -one.seconds / self.latency_s
        if one.ssim < self.alike:
            return one.ssim - self.alike
        spared = math.log(now_s / max(one.seconds, 1e-9))
        good = NormalDist().cdf((one.change + self.within) / max(one.doubt, 1e-6))
        return spared * good if spared > 0 else spared

    def sure(self, one: Standing) -> bool:
        """Is this way good enough, two standard errors left as a margin?"""
        return self.reached(one) and one.change - 2 * one.doubt >= -self.within

    def reached(self, one: Standing) -> bool:
        """Is this way one that may be chosen?"""
        if self.latency_s is not None:
            return one.seconds <= self.latency_s
        return one.ssim >= self.alike and one.change - one.doubt / 2 >= -self.within


def standing(way: str, looks: Mapping[int, Look], present: Mapping[int, Look]) -> Standing:
    """A way by what was seen of it; looks: by number of the prompt, of which the present way has all."""
    numbers = sorted(looks)
    own = [looks[number] for number in numbers]
    apart = np.array([looks[number].score - present[number].score for number in numbers])
    alike = float(np.mean([one.ssim for one in own]))
    assumed = max(LEAST_DOUBT, DOUBT * min(1.0, (1 - alike) / UNLIKE))
    spread = math.sqrt((float(((apart - apart.mean()) ** 2).sum()) + SEEN * assumed**2) / (len(apart) + SEEN))
    return Standing(
        way=way,
        prompts=len(own),
        seconds=float(np.median([one.seconds for one in own])),
        quality=float(np.mean([one.score for one in own])),
        change=float(apart.mean()),
        doubt=0.0 if looks is present else spread / math.sqrt(len(apart)),
        ssim=alike,
        psnr=float(np.mean([one.psnr for one in own])),
        memory_gb=max(one.memory_gb for one in own),
    )


def front(standings: Sequence[Standing]) -> list[Standing]:
    """Those than which no other is both as fast and as good, and better in one of it; the fastest first."""
    ranked = sorted(standings, key=lambda one: (one.seconds, -one.change))
    found: list[Standing] = []
    for one in ranked:
        if not found or one.change > found[-1].change:
            found.append(one)
    return found


def joined(build: Standing, asking: Standing, present: Standing) -> Standing:
    """What a way is expected to be that is built like one and asked like another, each of which differs from the
    present way in that alone: times and quality change as in both."""
    return replace(
        build,
        way=f"{build.way} + {asking.way}",
        seconds=build.seconds * asking.seconds / present.seconds,
        quality=present.quality + build.change + asking.change,
        change=build.change + asking.change,
        doubt=math.hypot(build.doubt, asking.doubt),
    )


def better_half(standings: Sequence[Standing], aim: Aim, least: int, now_s: float) -> list[str]:
    """The ways that go on: half of them, and no fewer than `least`; the one that would be taken now comes first, then
    the fastest of which it is all but sure that it is good enough, then those that promise most: these may yet be found
    wanting, and then the sure one is what is left. now_s: seconds of the present way"""
    ranked = [one.way for one in sorted(standings, key=lambda one: aim.promise(one, now_s), reverse=True)]
    sure = min((one for one in standings if aim.sure(one)), key=lambda one: one.seconds, default=None)
    for one in (sure, chosen(standings, aim)):
        if one is not None:
            ranked = [one.way, *(way for way in ranked if way != one.way)]
    return ranked[: max(least, math.ceil(len(ranked) / 2))]


def well_seen(standings: Sequence[Standing]) -> list[Standing]:
    """The present way, which is the first, and those that drew at least half as many prompts as any of the others: of
    a round that was cut short, those, too, whose turn had not come."""
    present, *others = standings
    most = max((one.prompts for one in others), default=0)
    return [present, *(one for one in others if 2 * one.prompts >= most)]


def chosen(standings: Sequence[Standing], aim: Aim) -> Standing | None:
    """The way to take, of those that were seen often enough; None if none reaches the aim.

    With a latency, the fastest of those that are as good as the best up to `within`.
    """
    able = [one for one in well_seen(standings) if aim.reached(one)]
    if not able:
        return None
    if aim.latency_s is not None:
        best = max(one.change for one in able)
        able = [one for one in able if one.change >= best - aim.within]
    return min(able, key=lambda one: one.seconds)

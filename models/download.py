"""Fetching the weights of cards from the hub: exactly the files that the loader reads, each checked by its digest."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.weights.loading import load_error
from models.weights.parts import as_card, own_sources
from models.weights.revisions import components
from router.errors import LoadError
from router.types import ModelCard

READ = (".json", ".txt", ".model", ".jinja")
"""Endings of configurations and vocabularies."""

NOT_READ = ("flax_", "tf_", "onnx", "openvino", "coreml")
LARGE = 50_000_000
"""Bytes from which a file goes on where it broke off."""

CHUNK = 1_000_000
TRIES = 5
PAUSE_S = 1.0

SPARE_GB = 1.0
"""What stays free on the disk."""

WEIGHTS = re.compile(r"(?P<stem>.+?)(?P<shard>-\d{5}-of-\d{5})?\.safetensors$")
INDEX = re.compile(r"(?P<stem>.+)\.safetensors\.index(?:\.(?P<variant>[\w-]+))?\.json$")


@dataclass(frozen=True)
class Wanted:
    """A file of a hub repository. digest: `sha256:…` of its content, `git:…` of what git calls it; size: bytes"""

    repo: str
    commit: str
    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Fetched:
    """What became of a file. fresh: it was not here before"""

    wanted: Wanted
    place: Path
    fresh: bool


class Hub:
    """What is asked of the hub. endpoint, cache: where it is and where files go (default: those of huggingface_hub)"""

    def __init__(self, endpoint: str | None = None, cache: Path | None = None) -> None:
        from huggingface_hub import HfApi

        self._api, self._endpoint, self._cache = HfApi(endpoint=endpoint), endpoint, cache

    @property
    def cache(self) -> Path:
        from huggingface_hub import constants

        return self._cache or Path(constants.HF_HUB_CACHE)

    def files(self, repo: str, revision: object) -> dict[str, Wanted]:
        """All files of a repository at a revision, by path."""
        info = self._api.model_info(repo, revision=str(revision) if revision else None, files_metadata=True)
        found = {}
        for one in info.siblings or ():
            lfs = one.lfs
            digest = f"sha256:{lfs.sha256}" if lfs else f"git:{one.blob_id}"
            size = int(lfs.size if lfs else one.size or 0)
            found[one.rfilename] = Wanted(repo, str(info.sha), one.rfilename, size, digest)
        return found

    def here(self, wanted: Wanted) -> Path | None:
        """Where a file is, if it was fetched before."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(wanted.repo, wanted.path, str(self.cache), revision=wanted.commit)
        return Path(found) if isinstance(found, str) else None

    def fetch(self, wanted: Wanted, again: bool = False) -> Path:
        """The file, downloaded; of a large one, what was begun before goes on where it broke off."""
        from huggingface_hub import hf_hub_download

        if wanted.size >= LARGE and self.here(wanted) is None:
            self._stream(wanted)
        options: dict[str, Any] = {"endpoint": self._endpoint, "cache_dir": str(self.cache), "force_download": again}
        return Path(hf_hub_download(wanted.repo, wanted.path, revision=wanted.commit, **options))

    def _stream(self, wanted: Wanted) -> None:
        """The content of a large file into the cache, where huggingface_hub finds it; by itself, that begins anew in
        each process."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import repo_folder_name
        from huggingface_hub.utils import WeakFileLock, build_hf_headers

        url = hf_hub_url(wanted.repo, wanted.path, revision=wanted.commit, endpoint=self._endpoint)
        folder = self.cache / repo_folder_name(repo_id=wanted.repo, repo_type="model") / "blobs"
        folder.mkdir(parents=True, exist_ok=True)
        blob = folder / str(get_hf_file_metadata(url).etag)
        part = blob.with_name(f"{blob.name}.part")
        with WeakFileLock(blob.with_name(f"{blob.name}.part.lock")):
            if not blob.exists():
                resumed(url, part, wanted.size, build_hf_headers())
                part.replace(blob)

    def index(self, wanted: Wanted) -> Path:
        """The folder of a pipeline's model_index.json, fetched."""
        return self.fetch(wanted).parent


def resumed(url: str, part: Path, size: int, headers: Mapping[str, str]) -> None:
    """Write what is at an address to the end of `part` until it has `size` bytes. Raises what httpx raises, after
    `TRIES` tries that brought nothing."""
    import httpx
    from tqdm import tqdm

    part.touch()
    tries = 0
    shown = {"unit": "B", "unit_scale": True, "disable": None, "desc": part.name[:12]}
    with tqdm(total=size, initial=part.stat().st_size, **shown) as bar:
        while (begin := part.stat().st_size) < size:
            try:
                _append(url, part, begin, headers, bar.update)
            except httpx.TransportError:
                tries = 0 if part.stat().st_size > begin else tries + 1
                if tries >= TRIES:
                    raise
                time.sleep(PAUSE_S)


def _append(url: str, part: Path, begin: int, headers: Mapping[str, str], told: Callable[[int], Any]) -> None:
    import httpx

    ranged = {**headers, "Range": f"bytes={begin}-"} if begin else dict(headers)
    with httpx.stream("GET", url, headers=ranged, follow_redirects=True, timeout=60.0) as answer:
        answer.raise_for_status()
        whole_again = answer.status_code == 200  # it does not know ranges
        with part.open("wb" if whole_again else "ab") as handle:
            for chunk in answer.iter_raw(CHUNK):
                handle.write(chunk)
                told(len(chunk))


def files_of(card: ModelCard, hub: Hub) -> list[Wanted]:
    """The files that loading a card reads from the hub; none if all of its weights are here. Raises `LoadError`.

    Of a pipeline: the index, and of each component that is loaded configuration, vocabulary and safetensors of the
    card's variant, or those without one where there is none.
    """
    found: dict[tuple[str, str], Wanted] = {}
    for one in _files(card, hub):
        found[one.repo, one.path] = one
    return list(found.values())


def _files(card: ModelCard, hub: Hub) -> Iterator[Wanted]:
    if repo := card.source.get("hub"):
        there = _listed(card, hub, str(repo), card.source.get("revision"))
        if card.role == "scorer":
            yield from _folder(there, "", "")
            if (processor := card.settings.get("processor")) and not Path(str(processor)).is_dir():
                words = _listed(card, hub, str(processor), None)
                yield from (one for path, one in words.items() if "/" not in path and path.endswith(READ))
        else:
            yield from _pipeline(card, hub, there)
    for name, spec in own_sources(card).items():
        if repo := spec.get("hub"):
            one = as_card(card, name)
            there = _listed(one, hub, str(repo), spec.get("revision"))
            yield from _folder(there, str(spec.get("subfolder") or ""), str(spec.get("variant") or ""))


def _listed(card: ModelCard, hub: Hub, repo: str, revision: object) -> dict[str, Wanted]:
    try:
        return hub.files(repo, revision)
    except Exception as error:
        raise load_error(card, error) from error


def _pipeline(card: ModelCard, hub: Hub, there: Mapping[str, Wanted]) -> Iterator[Wanted]:
    if "model_index.json" not in there:
        raise LoadError(f"model {card.id!r}: {card.source['hub']} has no model_index.json, so it is no pipeline")
    index = there["model_index.json"]
    yield index
    try:
        folder = hub.index(index)
    except Exception as error:
        raise load_error(card, error) from error
    for name in components(card, folder):
        files = list(_folder(there, name, str(card.source.get("variant") or "")))
        if not files:
            raise LoadError(
                f"model {card.id!r}: {card.source['hub']} lists a component {name!r} and has no files of it"
            )
        yield from files


def _folder(there: Mapping[str, Wanted], folder: str, variant: str) -> Iterator[Wanted]:
    """The files of one folder that are read. there: by path"""
    prefix = f"{folder}/" if folder else ""
    inside = {
        path.removeprefix(prefix): one
        for path, one in there.items()
        if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
    }
    names = [name for name in inside if not name.startswith(NOT_READ)]
    weights = [name for name in names if WEIGHTS.match(name)]
    chosen = [name for name in weights if _variant(name) == variant] or [n for n in weights if not _variant(n)]
    kept = _variant(chosen[0]) if chosen else ""
    for name in names:
        if INDEX.match(name):
            read = _index_variant(name) == kept
        else:
            read = name in chosen or (name.endswith(READ) and not name.endswith(".index.json"))
        if read:
            yield inside[name]


def _variant(name: str) -> str:
    """`fp16` of `model.fp16.safetensors` and of its shards, however they are named; empty without one."""
    found = WEIGHTS.match(name)
    _, _, variant = (found["stem"] if found else name).partition(".")
    # Older shards have it behind their number: model-00001-of-00002.fp16.safetensors.
    return re.sub(r"-\d{5}-of-\d{5}$", "", variant) if variant else ""


def _index_variant(name: str) -> str:
    """`fp16` of `model.safetensors.index.fp16.json` and of `model.fp16.safetensors.index.json`."""
    found = INDEX.match(name)
    assert found is not None
    return found["variant"] or found["stem"].partition(".")[2]


def download(
    files: Sequence[Wanted],
    hub: Hub,
    card: ModelCard,
    check: bool = False,
    told: Callable[[Wanted], None] = lambda _: None,
) -> list[Fetched]:
    """Fetch files, the small ones first, and compare the digest of each that is new, of all with `check`.

    told: of each file before it is fetched.   Raises `LoadError`, also if the disk has too little room.
    """
    absent = [one for one in files if hub.here(one) is None]
    _room(card, hub.cache, sum(one.size for one in absent))
    made = []
    for one in sorted(files, key=lambda one: (one.size, one.path)):
        fresh = one in absent
        if fresh:
            told(one)
        try:
            place = hub.fetch(one)
        except Exception as error:
            raise load_error(card, error) from error
        if (fresh or check) and not whole(place, one):
            place = _once_more(card, hub, one)
        made.append(Fetched(one, place, fresh))
    return made


def _once_more(card: ModelCard, hub: Hub, wanted: Wanted) -> Path:
    """A damaged file is fetched again, once."""
    try:
        place = hub.fetch(wanted, again=True)
    except Exception as error:
        raise load_error(card, error) from error
    if not whole(place, wanted):
        place.unlink(missing_ok=True)
        raise LoadError(
            f"model {card.id!r}: {wanted.path} of {wanted.repo} arrived twice with another content than that of its "
            f"digest ({wanted.digest[:19]}…); it was deleted. Is something in between that changes files?"
        )
    return place


def whole(place: Path, wanted: Wanted) -> bool:
    """Whether a file has the size and the content that the hub says."""
    if place.stat().st_size != wanted.size:
        return False
    kind, _, expected = wanted.digest.partition(":")
    if kind == "git":
        content = place.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == expected
    with place.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == expected


def _room(card: ModelCard, cache: Path, needed: int) -> None:
    place = cache
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and needed + SPARE_GB * 1e9 > free:
        raise LoadError(
            f"model {card.id!r}: {needed / 1e9:.1f} GB are to be fetched, and {cache} has {free / 1e9:.1f} GB left; "
            "make room, or set HF_HOME to another disk"
        )


def here_already(card: ModelCard) -> str:
    """Why nothing of a card is fetched, in words; empty if it comes from the hub."""
    if card.remote is not None:
        return f"drawn by {card.remote.name}"
    hubs = [card.source.get("hub"), *(spec.get("hub") for spec in own_sources(card).values())]
    return "" if any(hubs) else "its weights are files here"

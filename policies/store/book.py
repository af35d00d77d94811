"""The policies of a directory, kept up to date: a changed file counts for the next request, a broken one for none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policies.checking.load import Known, load_policy_text, load_with_text
from policies.deciding.decide import Policy
from policies.deciding.splits import falls_in
from policies.language.prompt_language import warm_up
from policies.language.schema import RESERVED
from policies.store.folder import Stamp, look
from policies.store.history import History, Version, locked, write_whole
from router.errors import NotFoundError, PolicyError, RequestError, did_you_mean
from router.types import GenerationRequest

logger = logging.getLogger("triptych.policies")

AUTO = RESERVED[0]


@dataclass(frozen=True)
class Change:
    """A policy that came into force, or went (digest and text are None). at_s: Unix time at which its file was written,
    or was seen to be gone"""

    name: str
    digest: str | None
    text: str | None
    at_s: float


@dataclass(frozen=True)
class _Entry:
    """A file: the policy in force with its text, and what is wrong with the file as it stands now.

    read_s: Unix time at which the policy in force was read
    """

    stamp: Stamp
    policy: Policy | None
    text: str = ""
    problems: tuple[str, ...] = ()
    read_s: float = field(default_factory=time.time, compare=False)


@dataclass(frozen=True)
class _Shelf:
    """One consistent state; replaced as a whole, so readers need no lock."""

    entries: Mapping[str, _Entry] = field(default_factory=dict)  # by file name
    problems: tuple[str, ...] = ()

    def policies(self) -> dict[str, Policy]:
        return {e.policy.name: e.policy for e in self.entries.values() if e.policy is not None}


class PolicyBook:
    """All policy files of a directory by name; `<name>.yaml` (or `.yml`) holds the policy `name`.

    Strict at the start: any broken file, or no policy named `default`, raises `PolicyError` with every problem.
    Lenient afterwards: a file that became broken leaves its last good policy in force, and `problems()` says so. The
    default policy outlives its file. Every look-up first asks the file system what has changed (a few microseconds), so
    whoever shares the directory, in this process or another, follows a change with the next request. One look-up reads
    what changed; others that come meanwhile get what was in force before, without waiting.
    """

    def __init__(
        self,
        directory: str | Path,
        default: str,
        *,
        known: Known | None = None,
        models: Collection[str] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.default_name = default
        self._known = known or Known(models)
        self._lock = threading.Lock()
        self._revision = 0
        self._history = History(self.directory)
        self._followers: list[Callable[[Change], None]] = []
        self._shelf = self._read(_Shelf())
        if self._shelf.problems:
            raise _cannot_start(self.directory, self._shelf.problems)
        _say_unchecked(self._shelf.policies())
        self._policies = self._shelf.policies()
        if default not in self._policies:
            hint = did_you_mean(default, self._policies)
            raise PolicyError(f"{self.directory} has no policy {default!r} to use as the default{hint}")
        _prepare({}, self._policies)

    @property
    def default(self) -> Policy:
        return self.get(self.default_name)

    def names(self) -> list[str]:
        """Names of all policies, the default first."""
        self.refresh()
        policies = self._policies
        return sorted(policies, key=lambda name: (name != self.default_name, name))

    def get(self, name: str) -> Policy:
        """The policy of that name as its file stands now. Raises `NotFoundError`."""
        self.refresh()
        policies = self._policies
        if name not in policies:
            raise NotFoundError(f"there is no policy {name!r}{did_you_mean(name, policies)}", "policy")
        return policies[name]

    def problems(self) -> tuple[str, ...]:
        """What is wrong with files that changed since the start, as `file:line:column: message`."""
        self.refresh()
        return self._shelf.problems

    @property
    def revision(self) -> int:
        """How often anything changed since the start, problems included, as far as it was looked at."""
        return self._revision

    @property
    def known_problems(self) -> tuple[str, ...]:
        """The same as `problems()`, as far as it was looked at."""
        return self._shelf.problems

    def refresh(self, wait: bool = False) -> bool:
        """Read again what changed. True if a policy came, went or changed. Never raises.

        While another thread reads, nothing is done, unless the caller wants to `wait` for it.
        """
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            before, shelf = self._policies, self._read(self._shelf)
            if shelf is self._shelf:
                return False
            self._tell(self._shelf, shelf)
            self._policies = shelf.policies()
            _prepare(before, self._policies)
            changes = _changes(self._shelf, shelf)
            self._shelf = shelf
            self._revision += 1
            for change in changes if self._followers else ():
                for follower in self._followers:
                    follower(change)
            return self._policies != before
        finally:
            self._lock.release()

    def follow(self, follower: Callable[[Change], None]) -> None:
        """Tell `follower` every policy that is in force, and from now on each change, in order. It must not raise."""
        with self._lock:
            for change in _changes(_Shelf(), self._shelf):
                follower(change)
            self._followers.append(follower)

    # ------------------------------------------------------------------------------------------------------- choosing

    def resolve(
        self,
        target: str,
        catalogue_ids: Collection[str] = (),
        drawing: Collection[str] | None = None,
        *,
        refresh: bool = True,
    ) -> tuple[Policy, str | None]:
        """What a client's `model` means: (policy, recipe or model asked for by name).

        In this order: "auto", a policy, "policy/recipe", a recipe of the default policy, a model of the catalogue; then
        the same in any case of letters. drawing: the models that can make a picture, which is all that is proposed.
        refresh: whether to look at the folder first; a request that was resolved once need not look again.
        Raises `NotFoundError` with the policies that have a recipe of that name, else the nearest of all these names.
        """
        if refresh:
            self.refresh()
        policies = self._policies
        default = policies[self.default_name]
        if target == AUTO:
            return default, None
        if target in policies:
            return policies[target], None
        name, slash, recipe = target.partition("/")
        if slash and name in policies and (recipe in policies[name].recipes or recipe in catalogue_ids):
            return policies[name], recipe
        if target in default.recipes or target in catalogue_ids:
            return default, target
        inside = {f"{policy.name}/{name}" for policy in policies.values() for name in policy.recipes}
        names = {AUTO, *policies, *default.recipes, *(catalogue_ids if drawing is None else drawing)}
        alike = [name for name in (*names, *inside) if name.casefold() == target.casefold()]
        if len(alike) == 1 and alike[0] != target:
            return self.resolve(alike[0], catalogue_ids, drawing, refresh=False)
        holders = sorted(name for name in inside if name.partition("/")[2].casefold() == target.casefold())
        if holders:
            hint = f"; it is a recipe of another policy: ask for {' or '.join(map(repr, holders))}"
        else:
            hint = did_you_mean(target, inside if slash else names)
        raise NotFoundError(f"there is no model, recipe or policy {target!r}{hint}", "model", "model_not_found")

    def canary_of(self, policy: Policy, request: GenerationRequest) -> Policy | None:
        """The policy that answers instead, if the request falls into the canary's share."""
        split = policy.canary
        return self._policies.get(split.policy) if split and falls_in(split, policy.name, request) else None

    def shadow_of(self, policy: Policy, request: GenerationRequest) -> Policy | None:
        """The policy whose decision is compared, if the request falls into the shadow's share."""
        split = policy.shadow
        return self._policies.get(split.policy) if split and falls_in(split, policy.name, request) else None

    # ------------------------------------------------------------------------------------------------------- changing

    def text(self, name: str, digest: str | None = None) -> str:
        """The file of a policy as it is in force, or as it was under an earlier digest. Raises `NotFoundError`."""
        policy = self.get(name)
        if digest is None or digest == policy.digest:
            return self._shelf.entries[self._file(name)].text
        if (text := self._history.text(name, digest)) is None:
            known = [version.digest for version in self._history.versions(name)]
            raise NotFoundError(f"policy {name!r} has no version {digest!r}{did_you_mean(digest, known)}", "digest")
        return text

    def _file(self, name: str) -> str:
        """The file of a policy: the one that holds it now, or else the one it would be written to."""
        of_it = (file for file, entry in self._shelf.entries.items() if Path(file).stem == name)
        return next(of_it, f"{name}.yaml")

    def versions(self, name: str) -> list[Version]:
        """What was in force, newest first; empty until the policy first changed. Raises `NotFoundError`."""
        self.get(name)
        return self._history.versions(name)

    def put(self, name: str, text: str, expected: str | None = None) -> Policy:
        """Validate `text`, write it as the policy's file, and return the policy that is in force now.

        expected: the digest that the caller saw; if another one is in force, nothing is changed (`RequestError`).
        Raises `PolicyError` with every problem, or `RequestError` if the folder cannot be written to.
        """
        policy = self._loaded(name, text)
        try:
            with locked(self.directory):
                self.refresh(wait=True)
                self._check_put(policy, expected)
                write_whole(self.directory / self._file(name), text)
        except OSError as error:
            raise RequestError(
                f"{self.directory} cannot be written to ({error.strerror}); change the policy where it is kept",
                None,
                "read_only",
            ) from None
        self.refresh(wait=True)
        return policy

    def check(self, name: str, text: str) -> Policy:
        """The policy that `put` would put in force. Raises `PolicyError` with every problem."""
        policy = self._loaded(name, text)
        self.refresh()
        self._check_put(policy, None)
        return policy

    def _loaded(self, name: str, text: str) -> Policy:
        policy = load_policy_text(text, f"{name}.yaml", known=self._known)
        if policy.name != name:
            raise PolicyError(f"{name}.yaml: the policy is named {policy.name!r}; put it under that name", ())
        return policy

    def _check_put(self, policy: Policy, expected: str | None) -> None:
        present = self._policies.get(policy.name)
        if expected is not None and (present is None or present.digest != expected):
            force = present.digest if present else "none"
            message = f"policy {policy.name!r} changed meanwhile: {force} is in force, not {expected}; read it again"
            raise RequestError(message, None, "conflict")
        if problems := tuple(_splits({**self._policies, policy.name: policy}, [policy])):
            raise PolicyError("\n  ".join(problems), problems)

    # -------------------------------------------------------------------------------------------------------- reading

    def _read(self, old: _Shelf) -> _Shelf:
        """The state of the directory; `old` itself if nothing changed."""
        try:
            folder = look(self.directory)
        except OSError as error:
            why = "no such directory" if isinstance(error, FileNotFoundError | NotADirectoryError) else error.strerror
            problem = f"{self.directory}: cannot be read: {why}"
            return old if old.problems == (problem,) else _Shelf(old.entries, (problem,))
        entries = {
            name: old.entries[name]
            if name in old.entries and old.entries[name].stamp == stamp
            else self._entry(name, old, stamp)
            for name, stamp in folder.files.items()
        }
        gone = [
            f"{self.directory / other}: is not read, since {kept} has the same name; keep one of them"
            for other, kept in folder.twice.items()
        ]
        if self.default_name not in {Path(file).stem for file in entries}:
            for file in [file for file in old.entries if Path(file).stem == self.default_name]:
                entries[file] = old.entries[file]
                gone.append(
                    f"{self.directory / file}: the file of the default policy is gone; the last one stays in force"
                )
        policies = _Shelf(entries).policies()
        own = (problem for entry in entries.values() for problem in entry.problems)
        shelf = _Shelf(entries, (*own, *_splits(policies, policies.values()), *gone))
        return old if shelf == old else shelf

    def _entry(self, name: str, old: _Shelf, stamp: Stamp) -> _Entry:
        before = old.entries.get(name)
        try:
            policy, text = load_with_text(self.directory / name, self._known)
        except PolicyError as error:
            if before is None or before.policy is None:
                return _Entry(stamp, None, "", error.problems)
            policy, text, read_s = self._last_good(before.policy, before)
            return _Entry(stamp, policy, text, error.problems, read_s)
        if before is not None and before.policy is not None and before.policy.digest != policy.digest:
            self._history.keep(policy.name, before.stamp[0], before.policy.digest, before.text)
            self._history.keep(policy.name, stamp[0], policy.digest, text)
        return _Entry(stamp, policy, text)

    def _last_good(self, policy: Policy, before: _Entry) -> tuple[Policy, str, float]:
        """What was in force when a file broke: another process may have followed a version that this one never read."""
        newest = next(iter(self._history.versions(policy.name)), None)
        # A file's time comes from a coarser clock, which may be some milliseconds behind.
        if newest is None or newest.since_s < before.read_s - 0.02 or newest.digest == policy.digest:
            return policy, before.text, before.read_s
        try:
            text = newest.path.read_text(encoding="utf-8")
            return load_policy_text(text, policy.origin, known=self._known), text, newest.since_s
        except (OSError, PolicyError):
            return policy, before.text, before.read_s

    def _tell(self, old: _Shelf, new: _Shelf) -> None:
        """A log line for everything that changed."""
        before, after = old.policies(), new.policies()
        for name in sorted(before.keys() | after.keys()):
            was, now = (book[name].digest if name in book else "none" for book in (before, after))
            if was != now:
                logger.info("policy %s: %s is in force instead of %s", name, now, was)
                _say_unchecked({name: after[name]} if name in after else {})
        for problem in new.problems:
            if problem not in old.problems:
                logger.error("a policy file is refused, what was in force stays: %s", problem)


def _changes(old: _Shelf, new: _Shelf) -> list[Change]:
    """What came into force and what went between two states."""
    before, after = ({e.policy.name: e for e in shelf.entries.values() if e.policy} for shelf in (old, new))
    came = [
        Change(name, entry.policy.digest, entry.text, entry.stamp[0] / 1e9)
        for name, entry in after.items()
        if entry.policy and not entry.problems
        if name not in before or before[name].policy != entry.policy
    ]
    return came + [Change(name, None, None, time.time()) for name in before.keys() - after.keys()]


def _prepare(before: Mapping[str, Policy], after: Mapping[str, Policy]) -> None:
    """Begins to load what only some policies need, when the first of them is put in force."""
    if any(policy.asks("language") for policy in after.values() if before.get(policy.name) != policy):
        warm_up()


def _say_unchecked(policies: Mapping[str, Policy]) -> None:
    for name, policy in policies.items():
        for skipped in policy.unchecked:
            logger.warning("policy %s: %s", name, skipped)


def _splits(policies: Mapping[str, Policy], of: Collection[Policy]) -> Iterator[str]:
    """Shadows and canaries that do not exist, or that are handed on."""
    for policy in of:
        for key, split in (("shadow", policy.shadow), ("canary", policy.canary)):
            if split is None:
                continue
            line, column = policy.places.get(key, (1, 1))
            where = f"{policy.origin}:{line}:{column}: {key}.policy:"
            if split.policy not in policies:
                hint = did_you_mean(split.policy, set(policies) - {policy.name})
                yield f"{where} unknown policy {split.policy!r}{hint}"
            elif getattr(policies[split.policy], key) is not None:
                yield f"{where} {split.policy!r} has a {key} of its own, which would not be asked; name that one"


def _cannot_start(directory: Path, problems: Collection[str]) -> PolicyError:
    lines = "\n  ".join(problems)
    return PolicyError(f"the policies in {directory} cannot be used:\n  {lines}", tuple(problems))

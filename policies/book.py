"""The policies of a directory, kept up to date: a changed file counts for the next request, a broken one for none."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policies.decide import Policy
from policies.load import Known, load_policy
from policies.schema import RESERVED
from router.errors import NotFoundError, PolicyError, did_you_mean

AUTO = RESERVED[0]

_Stamp = tuple[int, int, int]  # mtime_ns, size, inode


@dataclass(frozen=True)
class _Entry:
    stamp: _Stamp
    policy: Policy | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Shelf:
    """One consistent state; replaced as a whole, so readers need no lock."""

    entries: Mapping[str, _Entry] = field(default_factory=dict)  # by file name
    problems: tuple[str, ...] = ()

    def policies(self) -> dict[str, Policy]:
        return {e.policy.name: e.policy for e in self.entries.values() if e.policy is not None}


class PolicyBook:
    """All `*.yaml` of a directory by name; `<name>.yaml` holds the policy `name`.

    Strict at the start: any broken file, or no policy named `default`, raises `PolicyError` with every problem.
    Lenient afterwards: a file that became broken leaves its last good policy in force, and `problems()` says so. The
    default policy outlives its file. Every look-up first asks the file system what has changed (a few microseconds).
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
        self._shelf = self._read(_Shelf())
        if self._shelf.problems:
            raise _cannot_start(self.directory, self._shelf.problems)
        self._policies = self._shelf.policies()
        if default not in self._policies:
            hint = did_you_mean(default, self._policies)
            raise PolicyError(f"{self.directory} has no policy {default!r} to use as the default{hint}")

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

    def refresh(self) -> bool:
        """Read again what changed. True if a policy came, went or changed. Never raises."""
        if not self._lock.acquire(blocking=False):
            return False  # somebody else is reading; the state in force is good enough
        try:
            before, shelf = self._policies, self._read(self._shelf)
            if shelf is self._shelf:
                return False
            policies = shelf.policies()
            self._shelf, self._policies = shelf, policies
            return policies != before
        finally:
            self._lock.release()

    def resolve(self, target: str, catalogue_ids: Collection[str] = ()) -> tuple[Policy, str | None]:
        """What a client's `model` means: (policy, recipe or model asked for by name).

        In this order: "auto", a policy, "policy/recipe", a recipe of the default policy, a model of the catalogue.
        Raises `NotFoundError` with the nearest of all these names.
        """
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
        names = {AUTO, *policies, *default.recipes, *catalogue_ids}
        hint = did_you_mean(target, inside if slash else names)
        raise NotFoundError(f"there is no model, recipe or policy {target!r}{hint}", "model", "model_not_found")

    def _read(self, old: _Shelf) -> _Shelf:
        """The state of the directory; `old` itself if nothing changed."""
        try:
            stamps = {path.name: _stamp(path) for path in sorted(self.directory.glob("*.yaml"))}
            if not self.directory.is_dir():
                raise NotADirectoryError(20, "no such directory")
        except OSError as error:
            problem = f"{self.directory}: cannot be read: {error.strerror}"
            return old if old.problems == (problem,) else _Shelf(old.entries, (problem,))
        entries = {
            name: old.entries[name]
            if name in old.entries and old.entries[name].stamp == stamp
            else self._entry(name, old, stamp)
            for name, stamp in stamps.items()
        }
        gone = []
        default_file = f"{self.default_name}.yaml"
        if default_file in old.entries and default_file not in entries:
            entries[default_file] = old.entries[default_file]
            gone.append(
                f"{self.directory / default_file}: the file of the default policy is gone; the last one stays in force"
            )
        problems = tuple(problem for entry in entries.values() for problem in entry.problems) + tuple(gone)
        if entries == old.entries and problems == old.problems:
            return old
        return _Shelf(entries, problems)

    def _entry(self, name: str, old: _Shelf, stamp: _Stamp) -> _Entry:
        try:
            return _Entry(stamp, load_policy(self.directory / name, known=self._known))
        except PolicyError as error:
            in_force = old.entries[name].policy if name in old.entries else None
            return _Entry(stamp, in_force, error.problems)


def _stamp(path: Path) -> _Stamp:
    try:
        stat = path.stat()
    except OSError:  # a link that leads nowhere, or a file that vanished just now
        return (0, 0, 0)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _cannot_start(directory: Path, problems: Collection[str]) -> PolicyError:
    lines = "\n  ".join(problems)
    return PolicyError(f"the policies in {directory} cannot be used:\n  {lines}", tuple(problems))

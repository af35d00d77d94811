"""The configuration of one Triptych application: what an operator writes under `args:` in a Serve config.

Every key is checked: an unknown one is an error that proposes the nearest known key. Relative paths start at `ROOT`,
the folder that holds the packages, so that the configs shipped with Triptych work from any directory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from deployments.placement import ModelSettings, OrchestratorSettings, Placement, ReplicaSettings, WorkerSettings
from deployments.section import Section
from models.given.cleaning import Bounds
from router.errors import TriptychError

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "embedded.yaml"


class ConfigError(TriptychError):
    """A Serve config is missing, is not YAML, or holds a wrong key or value."""

    code = "invalid_config"


class PolicySettings(Section):
    """The folder of policy files, and the policy that `model: auto` means."""

    directory: str = "policies/presets"
    default: str = "balanced"

    @property
    def path(self) -> Path:
        return ROOT / self.directory


class StyleSettings(Section):
    """Folders with cards of styles and their weights, beside those that are shipped; weights are read from nowhere
    else."""

    directories: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(ROOT / Path(directory).expanduser() for directory in self.directories)


class WeightSettings(Section):
    """Where weights may be read from. directories: beside what is shipped, cards may name folders and files below these
    only; none: anywhere. The hub's cache is not meant"""

    directories: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple((ROOT / Path(directory).expanduser()).resolve() for directory in self.directories)


class QueueSettings(Section):
    """Where steps wait for workers, and in which order they have their turns.

    at_worker: how many steps, or batches, each replica has at most: the one that runs, and those about to
    soon_s:    the next is sent when the one that runs is expected to end within so many seconds, which hides the way
               there; until then it can be overtaken, cancelled, or made together with others
    ageing_s:  a priority class goes up one for the first step of a tenant that had no turn in it for so long
    hold_back: at most this share (0..1) of the time until its deadline that a step does not need is waited for others
               to be made together with it; 0: only what already waits is taken along
    batch_s:   no batch of several is made that is expected to take longer, since whoever comes meanwhile waits for its
               end; None: as many at once as pays
    weights:   what tenants count against others of the same class, by name; 1 for all others
    """

    at_worker: int = Field(default=2, ge=1)
    soon_s: float = Field(default=0.05, ge=0)
    ageing_s: float = Field(default=120.0, gt=0)
    hold_back: float = Field(default=0.0, ge=0, le=1)
    batch_s: float | None = Field(default=None, gt=0)
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)


class Limits(Section):
    """What a single request may ask for, whatever the policy says.

    max_inside: requests that each proxy lets in at the same time; further ones are told when to come back
    body_timeout_s: within which a body has to have arrived
    request_timeout_s: how long a request may take in all, unless it says otherwise
    drain_s: how long pictures that are being made may still take when the server is told to stop
    quality: which policy each value of OpenAI's `quality` stands for, when `model` is not given or "auto"
    aliases: those of the application, `AppSettings.aliases`, for whoever reads requests
    prompt_styles: styles by id, and whether a prompt may name them, as their cards say (`in_prompts`); for the same
    """

    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    max_prompt_chars: int = Field(default=32_000, ge=1)
    max_n: int = Field(default=10, ge=1)
    max_inside: int = Field(default=128, ge=1)
    request_timeout_s: float = Field(default=600.0, gt=0)
    body_timeout_s: float = Field(default=20.0, gt=0)
    drain_s: float = Field(default=30.0, ge=0)
    quality: dict[str, str] = Field(
        default_factory=lambda: {
            "low": "fast", "medium": "balanced", "high": "best", "standard": "balanced", "hd": "best",
        }
    )  # fmt: skip
    aliases: dict[str, str] = Field(default_factory=dict)
    prompt_styles: dict[str, bool] = Field(default_factory=dict)

    def stands_for(self, model: str) -> str:
        """What `model` of a request means: the name itself, or the one that it is an alias of, in any case."""
        if model in self.aliases:
            return self.aliases[model]
        folded = {alias.casefold(): name for alias, name in self.aliases.items()}
        return folded.get(model.casefold(), model)


class UploadSettings(Section):
    """What pictures a request may bring. They are never fetched from addresses.

    max_bytes, max_pixels: of each;   max_files: in one request;   max_body_bytes: of a request that may bring some
    timeout_s: seconds for decoding one
    """

    max_bytes: int = Field(default=20 * 2**20, ge=1024)
    max_pixels: int = Field(default=2**24, ge=64 * 64, le=2**26)
    max_files: int = Field(default=16, ge=1, le=64)
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)
    timeout_s: float = Field(default=10.0, gt=0)

    @property
    def bounds(self) -> Bounds:
        """As the decoder takes them."""
        return Bounds(self.max_bytes, self.max_pixels, self.timeout_s)


class CorsSettings(Section):
    """Which web pages may call Triptych from a browser.

    origins: such as `https://studio.example.org`; "*" is any page; none: no page of another origin can
    """

    origins: tuple[str, ...] = ()


class AuthSettings(Section):
    """Who may ask.

    required: whether every request needs a key. `auto`: yes, unless only this machine can reach the server (it listens
              on loopback) and no key was ever made
    """

    required: Literal["auto"] | bool = "auto"


class UrlSettings(Section):
    """Addresses of pictures, which whoever has them can open until they expire.

    base:     how clients reach this server, such as `https://pictures.example.org`; by default as the request did
    expire_s: seconds
    """

    base: str | None = Field(default=None, pattern=r"^https?://[^/\s]+(/[^\s]*)?$")
    expire_s: float = Field(default=3600.0, gt=0)


class WebhookSettings(Section):
    """Who may be told of jobs that have ended.

    allow:   origins such as `https://hooks.example.org`, `https://*.example.org`, `http://10.0.0.7:8080`; none: nobody
    private: whether their addresses may be loopback, private or link-local ones
    """

    allow: tuple[Annotated[str, Field(pattern=r"^https?://[^/\s@]+$")], ...] = ()
    private: bool = False


class C2paSettings(Section):
    """What pictures are signed with, by C2PA; needs the extra `c2pa`. Both files are PEM, read by the orchestrator.

    certificate: the signer's, then those that issued it
    key:         of the signer's, without a password; readable by the server alone
    """

    certificate: str
    key: str

    @property
    def certificate_path(self) -> Path:
        return ROOT / Path(self.certificate).expanduser()

    @property
    def key_path(self) -> Path:
        return ROOT / Path(self.key).expanduser()


class ProvenanceSettings(Section):
    """What the files of pictures say beyond their policies' `provenance`. c2pa: sign them; by default they are not"""

    c2pa: C2paSettings | None = None


class ModeratorSettings(Section):
    """An endpoint of OpenAI's moderation shape, which policies may name.

    url:       such as `https://api.openai.com/v1/moderations`; no other host is ever asked
    model:     sent with each request; by default the endpoint chooses
    key_env:   the environment variable with its key, where the orchestrator runs
    timeout_s: seconds for one check
    """

    url: str = Field(pattern=r"^https?://[^/\s@]+(/[^\s]*)?$")
    model: str | None = Field(default=None, min_length=1)
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeout_s: float = Field(default=5.0, gt=0, le=60)


class SafetySettings(Section):
    """What the checks of policies may ask.

    moderators: endpoints by the name that policies give
    """

    moderators: dict[str, ModeratorSettings] = Field(default_factory=dict)


class FeedbackSettings(Section):
    """The log of decisions, a part of the store, which feedback is attached to and retraining learns from.

    log:            whether decisions are logged at all
    store_prompts:  hash: a keyed hash, an embedding and counts stand in for the prompt; text: the prompt itself, too
    max_age_days, max_rows: decisions beyond are deleted, with their feedback
    """

    log: bool = True
    store_prompts: Literal["hash", "text"] = "hash"
    max_age_days: float = Field(default=180.0, gt=0)
    max_rows: int = Field(default=200_000, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _no_file_of_its_own(cls, data: Any) -> Any:
        if isinstance(data, dict) and "path" in data:
            raise PydanticCustomError(
                "moved",
                "path: decisions are in the store now. Leave it out, name the database under store.url (as "
                "sqlite:////data/triptych.sqlite); `triptych router log --take-over {file}` keeps what is there",
                {"file": str(data["path"])},
            )
        return data


def state_folder() -> Path:
    """Where Triptych keeps what must last if nothing else is said: `triptych` in $XDG_STATE_HOME."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "triptych"


class StoreSettings(Section):
    """Where jobs, pictures, keys, usage and decisions are kept.

    url:           `postgresql+psycopg://user:password@host/name` or `sqlite:////folder/file`; by default the file
                   triptych.sqlite in the state folder of the user ($XDG_STATE_HOME/triptych), on a local disk
    pictures:      a folder or a URL such as `s3://bucket/prefix`; by default `pictures` in the state folder
    max_age_days:  ended jobs are forgotten with their pictures after so long
    max_gib:       beyond, the pictures of the jobs that ended first are forgotten with these jobs
    keep_free_mib: with less room than that, nothing new is accepted; what was accepted is finished with it
    """

    url: str | None = None
    pictures: str | None = None
    max_age_days: float = Field(default=7.0, gt=0)
    max_gib: float = Field(default=5.0, gt=0)
    keep_free_mib: float = Field(default=128.0, ge=0)

    @field_validator("url")
    @classmethod
    def _a_database(cls, url: str | None) -> str | None:
        scheme = None if url is None else url.partition(":")[0]
        if scheme not in (None, "sqlite", "postgresql+psycopg", "postgresql", "postgres"):
            raise ValueError(
                f"{scheme!r} is no database that Triptych can use; write postgresql+psycopg://user:password@host/name "
                "or sqlite:////folder/file"
            )
        return url

    @property
    def database_url(self) -> str:
        return self.url or f"sqlite:///{state_folder() / 'triptych.sqlite'}"

    @property
    def folder_path(self) -> Path:
        """Where the database is, if it is a file, else the state folder: for what belongs to it and is no table."""
        file = self.database_url.removeprefix("sqlite:///")
        return state_folder() if file == self.database_url else Path(file).parent

    @property
    def pictures_place(self) -> str:
        if self.pictures is not None:
            return self.pictures if "://" in self.pictures else str(ROOT / Path(self.pictures).expanduser())
        return str(state_folder() / "pictures")


class MetricsSettings(Section):
    """Where Prometheus scrapes the series of all processes: `http://host:port/metrics`, without a key.

    host: of the machine that the orchestrator runs on; only this machine can reach 127.0.0.1
    port: null: nowhere
    """

    host: str = "127.0.0.1"
    port: int | None = Field(default=9464, ge=1, le=65535)


class TracingSettings(Section):
    """Where traces go.

    otlp:  of a collector, OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; by default nowhere
    share: of the traces that begin here; those that a client began follow its word
    """

    otlp: str | None = Field(default=None, pattern=r"^https?://[^/\s]+(/[^\s]*)?$")
    share: float = Field(default=1.0, ge=0, le=1)


class LogSettings(Section):
    """Where log lines go, as JSON, one file a process.

    folder:    by default `logs` in the state folder ($XDG_STATE_HOME/triptych)
    max_mib:   a file that is full is put aside;   files: so many of these are kept for each process
    keep_days: files of processes that ended are deleted after so long
    """

    folder: str | None = None
    level: Literal["debug", "info", "warning", "error"] = "info"
    max_mib: float = Field(default=20.0, gt=0)
    files: int = Field(default=3, ge=1)
    keep_days: float = Field(default=14.0, gt=0)

    @property
    def path(self) -> Path:
        return state_folder() / "logs" if self.folder is None else ROOT / Path(self.folder).expanduser()


class AppSettings(Section):
    """Everything that `deployments.app:build` needs.

    models:  by catalogue id
    workers: processes that hold several of them, by the name that `models.<id>.worker` gives; once read, all workers
    aliases: what other names of `model` stand for, e.g. `dall-e-3: best`, for clients whose list of models is fixed
    """

    models: dict[str, ModelSettings] = Field(min_length=1)
    workers: dict[str, WorkerSettings] = Field(default_factory=dict)
    policies: PolicySettings = Field(default_factory=PolicySettings)
    styles: StyleSettings = Field(default_factory=StyleSettings)
    weights: WeightSettings = Field(default_factory=WeightSettings)
    artifact: str = "router/artifacts/embedded"
    feedback: FeedbackSettings = Field(default_factory=FeedbackSettings)
    orchestrator: OrchestratorSettings = Field(default_factory=OrchestratorSettings)
    queues: QueueSettings = Field(default_factory=QueueSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    ingress: ReplicaSettings = Field(default_factory=ReplicaSettings)
    limits: Limits = Field(default_factory=Limits)
    uploads: UploadSettings = Field(default_factory=UploadSettings)
    aliases: dict[str, str] = Field(default_factory=dict)
    cors: CorsSettings = Field(default_factory=CorsSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    urls: UrlSettings = Field(default_factory=UrlSettings)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    provenance: ProvenanceSettings = Field(default_factory=ProvenanceSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    logs: LogSettings = Field(default_factory=LogSettings)
    safety: SafetySettings = Field(default_factory=SafetySettings)
    env_vars: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _requests_are_read_with_aliases(self) -> AppSettings:
        known = {**self.limits.aliases, **self.aliases}
        self.__dict__["limits"] = self.limits.model_copy(update={"aliases": known})
        return self

    @model_validator(mode="after")
    def _requests_are_read_with_styles(self) -> AppSettings:
        """Cards are read once, where the application is put together: replicas are told, and may lie elsewhere."""
        if not self.limits.prompt_styles:
            from models.styles.cards import named_in_prompts

            known = named_in_prompts(self.styles.paths)
            self.__dict__["limits"] = self.limits.model_copy(update={"prompt_styles": known})
        return self

    @model_validator(mode="after")
    def _every_model_has_a_worker(self) -> AppSettings:
        """Afterwards every model names its worker, and models and workers say the same of where that runs."""
        members: dict[str, list[str]] = {}
        for model, chosen in self.models.items():
            members.setdefault(chosen.worker or model, []).append(model)
        if unused := [name for name in self.workers if name not in members]:
            raise ValueError(f"workers.{unused[0]}: no model says `worker: {unused[0]}`")
        workers, models = {}, dict(self.models)
        for name, held in members.items():
            try:
                workers[name] = WorkerSettings(**self._agreed(name, held))
            except ValidationError as error:
                raise ValueError("; ".join(f"worker {name!r}: {line}" for line in problems(error.errors()))) from None
            for model in held:
                models[model] = self.models[model].model_copy(update={**dict(workers[name]), "worker": name})
        self.__dict__.update(models=models, workers=workers)
        return self

    def _agreed(self, worker: str, held: Sequence[str]) -> dict[str, Any]:
        """What is said of a worker, by its own section and by its models. Raises ValueError where they contradict."""
        said: dict[str, tuple[str, Any]] = {}
        sections: dict[str, Placement] = {f"models.{model}": self.models[model] for model in held}
        if worker in self.workers:
            sections = {f"workers.{worker}": self.workers[worker], **sections}
        for where, section in sections.items():
            for key in (key for key in Placement.model_fields if key in section.model_fields_set):
                value = getattr(section, key)
                first, agreed = said.setdefault(key, (where, value))
                if value != agreed:
                    raise ValueError(
                        f"{where}.{key}: {value!r} contradicts {agreed!r} of {first}; they share the worker {worker!r}"
                    )
        return {key: value for key, (_, value) in said.items()}

    def models_of(self, worker: str) -> tuple[str, ...]:
        """The models that a worker holds."""
        return tuple(model for model, chosen in self.models.items() if chosen.worker == worker)

    @property
    def artifact_path(self) -> Path:
        return ROOT / self.artifact


@dataclass(frozen=True)
class ServeConfig:
    """The parts of a Ray Serve config file that `triptych serve` uses."""

    settings: AppSettings
    name: str = "triptych"
    route_prefix: str = "/"
    host: str = "127.0.0.1"
    port: int = 8000
    request_timeout_s: float | None = None
    path: Path | None = None


def parse_settings(data: Any, where: str = "settings") -> AppSettings:
    """Validated settings; raises `ConfigError` that names `where` and every wrong key."""
    try:
        return AppSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(problems(error.errors()))) from None


def problems(errors: Sequence[Any]) -> list[str]:
    """Pydantic's errors as `path.to.key: message` lines."""
    lines = []
    for error in errors:
        # The tags of a union are no keys of the file.
        path = ".".join(str(part) for part in error["loc"] if part not in ("number", "autoscaling"))
        message = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")
        message = "this key is missing" if error["type"] == "missing" else message
        lines.append(f"{path}: {message}" if path else message)
    return lines


def load_serve_config(path: str | Path) -> ServeConfig:
    """Read a Ray Serve config (YAML, or JSON, which is YAML) with one application built by `deployments.app:build`.

    Raises `ConfigError` if the file is missing, broken, or about something else.
    """
    file = Path(path)
    document = _read(file)
    applications = document.get("applications")
    if not isinstance(applications, list) or len(applications) != 1:
        raise ConfigError(f"{file}: expected exactly one entry under 'applications'")
    application = _mapping(applications[0], f"{file}: applications[0]")
    if application.get("import_path") != "deployments.app:build":
        raise ConfigError(f"{file}: import_path must be deployments.app:build, not {application.get('import_path')!r}")
    http = _mapping(document.get("http_options") or {}, f"{file}: http_options")
    port = http.get("port", 8000)
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ConfigError(f"{file}: http_options.port must be a whole number from 1 to 65535, not {port!r}")
    return ServeConfig(
        settings=parse_settings(application.get("args") or {}, f"{file}: args"),
        name=str(application.get("name") or "triptych"),
        route_prefix=str(application.get("route_prefix") or "/"),
        host=str(http.get("host") or "127.0.0.1"),
        port=port,
        request_timeout_s=http.get("request_timeout_s"),
        path=file,
    )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping, not {value!r}")
    return value


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected a mapping with 'applications', as Ray Serve configs have")
    return document

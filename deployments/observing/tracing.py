"""Traces: one id from the edge over the orchestrator to each denoising step on a worker, whichever processes they are.

W3C trace context is carried along in any case, so that log lines have its id; spans are made and sent only where
`tracing: {otlp: URL}` says where to. The provider is one of our own: Ray has its own ideas about the global one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.errors import TriptychError

if TYPE_CHECKING:  # the SDK takes a moment to import, and few need it
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Carrier = Mapping[str, str]
"""What goes from process to process: `traceparent` as W3C has it, and what log lines say (`request`, `job`)."""

_W3C = TraceContextTextMapPropagator()
_SAID: ContextVar[Mapping[str, str]] = ContextVar("triptych_said", default={})  # noqa: B039  # never changed
_BESIDE: ContextVar[tuple[Carrier, ...]] = ContextVar("triptych_beside", default=())
_provider: TracerProvider | None = None


class TracingError(TriptychError):
    """Spans cannot be sent."""

    code = "invalid_config"


def start(process: str, exporter: SpanExporter, share: float = 1.0, at_once: bool = False) -> None:
    """Make spans in this process from now on. share: of the traces that begin here;   at_once: send each by itself"""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    global _provider
    stop()
    resource = Resource.create({"service.name": "triptych", "service.instance.id": process})
    _provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(share)))
    _provider.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))


def otlp(url: str) -> SpanExporter:
    """Sends spans to a collector (OTLP over HTTP). Raises `TracingError` if what that needs is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise TracingError(
            "tracing.otlp needs a package more: pip install -c constraints.txt -e '.[tracing]'"
        ) from None
    return OTLPSpanExporter(endpoint=url)


def stop() -> None:
    """Send what waits, and make no spans any more."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def active() -> bool:
    """Whether spans are made in this process."""
    return _provider is not None


# --------------------------------------------------------------------------------------------------------- the context


def trace_id() -> str:
    """Of what is under way here, 32 hexadecimal digits; empty outside of any request."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def said() -> Mapping[str, str]:
    """What log lines say of what is under way: `request`, `job`."""
    return _SAID.get()


def carrier() -> Carrier:
    """The present context, for another process or a later time."""
    found: dict[str, str] = dict(_SAID.get())
    _W3C.inject(found)
    return found


@contextmanager
def resumed(carried: Carrier | None) -> Iterator[None]:
    """Go on in a context that was carried here. None: in none."""
    values = dict(carried or {})
    token = otel.attach(_context(values))
    words = _SAID.set({name: value for name, value in values.items() if name in ("request", "job")})
    try:
        yield
    finally:
        _SAID.reset(words)
        otel.detach(token)


@contextmanager
def saying(**words: str) -> Iterator[None]:
    """Log lines say these, too."""
    token = _SAID.set({**_SAID.get(), **words})
    try:
        yield
    finally:
        _SAID.reset(token)


@contextmanager
def beside(carriers: Sequence[Carrier]) -> Iterator[None]:
    """What is done here is done for all of these at once: a batch. The first of them is the context."""
    token = _BESIDE.set(tuple(carriers))
    try:
        with resumed(carriers[0] if carriers else None):
            yield
    finally:
        _BESIDE.reset(token)


def together() -> tuple[Carrier, ...]:
    """For whom this is done: the contexts of `beside`, or else the present one."""
    return _BESIDE.get() or (carrier(),)


def _context(values: Carrier) -> otel.Context:
    """With a span: the one that was carried, or else the beginning of a new trace that nobody records."""
    found = _W3C.extract(dict(values), otel.Context())
    if "traceparent" not in values or not trace.get_current_span(found).get_span_context().is_valid:
        fresh = SpanContext(
            int.from_bytes(secrets.token_bytes(16)) or 1, int.from_bytes(secrets.token_bytes(8)) or 1, False
        )
        return trace.set_span_in_context(NonRecordingSpan(fresh), otel.Context())
    return found


# --------------------------------------------------------------------------------------------------------------- spans


@contextmanager
def begun(carried: Carrier, name: str, **attributes: Any) -> Iterator[Span]:
    """The first span here of a request that a client sent: it goes on with the client's trace, or begins one."""
    if _provider is None:
        with resumed(carried):
            yield trace.get_current_span()
        return
    parent = _W3C.extract(dict(carried), otel.Context())
    tracer = _provider.get_tracer("triptych")
    words = _SAID.set({name: value for name, value in carried.items() if name in ("request", "job")})
    try:
        with tracer.start_as_current_span(name, parent, SpanKind.SERVER, attributes=_plain(attributes)) as found:
            yield found
    finally:
        _SAID.reset(words)


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[Span]:
    """A span around a block, within the present one. An expected failure is an error without a traceback."""
    if _provider is None:
        yield trace.get_current_span()
        return
    tracer = _provider.get_tracer("triptych")
    with tracer.start_as_current_span(
        name, attributes=_plain(attributes), record_exception=False, set_status_on_exception=False
    ) as found:
        try:
            yield found
        except BaseException as error:
            found.set_status(StatusCode.ERROR, getattr(error, "code", type(error).__name__))
            raise


def recorded(carried: Carrier, name: str, began_ns: int, ended_ns: int, **attributes: Any) -> Carrier:
    """A span of the past; returns its own carrier, for what was within it."""
    if _provider is None:
        return carried
    parent = _W3C.extract(dict(carried), otel.Context())
    made = _provider.get_tracer("triptych").start_span(name, parent, attributes=_plain(attributes), start_time=began_ns)
    made.end(ended_ns)
    inner: dict[str, str] = {}
    _W3C.inject(inner, trace.set_span_in_context(made, otel.Context()))
    return inner


class Drawing:
    """A step, or a batch of them, on its model: a span each, and one for each denoising step within. Called from the
    pipeline's thread; costs nothing where no spans are made."""

    def __init__(self, **attributes: Any) -> None:
        self._attributes = attributes
        self._for = together()
        self._began: int | None = None
        self._moments: dict[int, list[tuple[int, int]]] = {}

    def begin(self) -> None:
        """The model is ours now."""
        self._began = time.time_ns()

    def denoised(self, number: int, done: int, total: int) -> None:
        """Step `number` of the batch has `done` of `total` denoising steps behind it."""
        moments = self._moments.setdefault(number, [])
        if not moments or moments[-1][0] != done:
            moments.append((done, time.time_ns()))
        self._attributes["denoising_steps"] = total

    def end(self) -> None:
        """Whatever came out of it."""
        if (began := self._began) is None:
            return
        ended = time.time_ns()
        for number, carried in enumerate(self._for):
            inner = recorded(carried, "draw", began, ended, batch=len(self._for), **self._attributes)
            last = began
            for done, at in self._moments.get(number, ()):
                recorded(inner, f"denoise {done}", last, at, number=done)
                last = at


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in attributes.items() if value is not None}
    return {f"triptych.{n}": v if isinstance(v, str | bool | int | float) else str(v) for n, v in known.items()}

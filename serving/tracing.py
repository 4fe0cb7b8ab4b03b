"""Traces: OpenTelemetry, if the environment names an exporter; without one nothing is imported or wrapped.

Must not know: routes, models.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from threading import Thread
from typing import Any

from starlette.types import ASGIApp

from serving.errors import ConfigurationError

# The standard variables: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
EXPORTER, ENDPOINTS = "OTEL_TRACES_EXPORTER", ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

SERVICE_NAME = "mnist-reader"

# Asked every few seconds; a span for each would bury the others.
EXCLUDED = "livez,readyz,healthz,metrics,v2/health"

# At the end of the process, the longest wait for a collector.
FLUSH_S = 2.0


def exporter_name(environ: Mapping[str, str]) -> str:
    """Return "otlp", "console" or "none".

    Raises:
        ConfigurationError: another exporter is asked for.
    """
    default = "otlp" if any(environ.get(name) for name in ENDPOINTS) else "none"
    name = environ.get(EXPORTER) or default
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "none"
    if name not in ("otlp", "console", "none"):
        raise ConfigurationError(f"{EXPORTER}={name!r}: expected otlp, console or none")
    return name


def check_exporter(environ: Mapping[str, str]) -> None:
    """Check that there are no traces, or what exports them.

    Raises:
        ConfigurationError: an exporter that is unknown or not installed.
    """
    if exporter_name(environ) == "otlp":
        _otlp()


def _otlp() -> Any:
    try:
        return import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise ConfigurationError("traces to otlp need the extra `otlp`, which is not installed") from error


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    return _otlp().OTLPSpanExporter()


class Traces:
    """A span around each request, or nothing when traces are off.

    Args:
        environ: such as `os.environ`.
        exporter: instead of the one that the environment names.

    Raises:
        ConfigurationError: an exporter that is unknown or not installed.
    """

    def __init__(self, environ: Mapping[str, str], exporter: Any = None):
        self._provider: Any = None
        name = exporter_name(environ)
        if name == "none":
            return
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # What the environment names goes before our name: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
        resource = Resource.create({"service.name": SERVICE_NAME}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(name)))

    @property
    def on(self) -> bool:
        """Whether requests have spans."""
        return self._provider is not None

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the app with a span around each request, or the app itself when traces are off."""
        if not self.on:
            return app
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.util.http import parse_excluded_urls

        excluded = parse_excluded_urls(EXCLUDED)
        return OpenTelemetryMiddleware(
            app, tracer_provider=self._provider, excluded_urls=excluded, exclude_spans=["receive", "send"]
        )

    def call(
        self, service: str, method: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> AbstractContextManager[Any]:
        """Return a span around a gRPC call, under the caller's if the metadata name it; traces must be on.

        Source: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
        """
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        caller = extract({name: value for name, value in metadata if isinstance(value, str)})
        span: AbstractContextManager[Any] = self._provider.get_tracer("serving").start_as_current_span(
            f"{service}/{method}",
            caller,
            SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
            # A refusal ends a call by an exception.
            record_exception=False,
            set_status_on_exception=False,
        )
        return span

    def flush(self) -> None:
        """Export what has not been exported yet: a process that a signal ends runs nothing at its exit."""
        if self.on:
            # The exporter goes on trying for longer, and takes no limit.
            flushing = Thread(target=self._provider.force_flush, daemon=True)
            flushing.start()
            flushing.join(FLUSH_S)

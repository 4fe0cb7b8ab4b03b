"""Traces: OpenTelemetry, if the environment names an exporter; without one nothing is imported or wrapped.

Must not know: routes, models.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from starlette.types import ASGIApp

from serving.errors import ConfigurationError

# The standard variables: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
EXPORTER, ENDPOINTS = "OTEL_TRACES_EXPORTER", ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

SERVICE_NAME = "mnist-reader"

# Asked every few seconds; a span for each would bury the others.
EXCLUDED = "livez,readyz,healthz,metrics,v2/health"


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


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    try:
        module = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        fix = "pip install opentelemetry-exporter-otlp-proto-http"
        raise ConfigurationError(f"traces to {name} need a package that is not installed: {fix}") from error
    return module.OTLPSpanExporter()


def traced(app: ASGIApp, environ: Mapping[str, str], exporter: Any = None) -> ASGIApp:
    """Return the app with a span around each request, or the app itself when traces are off.

    Args:
        app: ASGI.
        environ: such as `os.environ`.
        exporter: instead of the one that the environment names.

    Raises:
        ConfigurationError: an exporter that is unknown or not installed.
    """
    name = exporter_name(environ)
    if name == "none":
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.util.http import parse_excluded_urls

    provider = TracerProvider(
        resource=Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME", SERVICE_NAME)})
    )
    provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(name)))
    return OpenTelemetryMiddleware(
        app, tracer_provider=provider, excluded_urls=parse_excluded_urls(EXCLUDED), exclude_spans=["receive", "send"]
    )

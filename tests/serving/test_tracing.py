import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serving.errors import ConfigurationError
from serving.tracing import Traces, check_exporter, exporter_name

ROOT = Path(__file__).parents[2]


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def app() -> Starlette:
    return Starlette(routes=[Route("/predict", hello), Route("/livez", hello)])


def test_without_an_exporter_the_app_is_left_as_it_is():
    made = app()
    assert Traces({}).around(made) is made
    assert Traces({"OTEL_TRACES_EXPORTER": "none"}).around(made) is made
    assert Traces({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}).around(made) is made


def test_an_endpoint_means_otlp():
    assert exporter_name({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) == "otlp"
    assert exporter_name({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}) == "otlp"


def test_an_unknown_exporter_is_refused():
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER='zipkin': expected otlp, console or none"):
        Traces({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_an_exporter_that_is_not_installed_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    for asked in ({"OTEL_TRACES_EXPORTER": "otlp"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}):
        with pytest.raises(ConfigurationError, match="need the extra `otlp`"):
            check_exporter(asked)
        with pytest.raises(ConfigurationError, match="need the extra `otlp`"):
            Traces(asked)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "mnist-reader"),
        ({"OTEL_SERVICE_NAME": "digits"}, "digits"),
        ({"OTEL_SERVICE_NAME": ""}, "mnist-reader"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=digits,deployment=here"}, "digits"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=digits", "OTEL_SERVICE_NAME": "other"}, "other"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment=here"}, "mnist-reader"),
    ],
)
async def test_the_environment_may_name_the_service(given: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch):
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    exporter = InMemorySpanExporter()
    traces = Traces({"OTEL_TRACES_EXPORTER": "console"}, exporter)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(traces.around(app())), base_url="http://test") as client:
        await client.get("/predict")
    traces.flush()
    (span,) = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == name
    assert span.resource.attributes.get("deployment") == ("here" if "here" in str(given) else None)
    assert span.resource.attributes["telemetry.sdk.name"] == "opentelemetry"


async def test_each_request_has_a_span_under_its_callers_but_probes_have_none():
    exporter = InMemorySpanExporter()
    traces = Traces({"OTEL_TRACES_EXPORTER": "console"}, exporter)
    wrapped = traces.around(app())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://test") as client:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert (await client.get("/predict", headers={"traceparent": parent})).status_code == 200
        await client.get("/livez")
    traces.flush()
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert "/predict" in span.name or span.attributes["http.target"] == "/predict"


def test_a_collector_that_does_not_answer_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch):
    exported, let_go = threading.Event(), threading.Event()

    class Stuck(InMemorySpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            exported.set()
            let_go.wait()
            return SpanExportResult.FAILURE

    monkeypatch.setattr("serving.tracing.FLUSH_S", 0.01)
    traces = Traces({"OTEL_TRACES_EXPORTER": "console"}, Stuck())
    traces._provider.get_tracer("test").start_span("one").end()
    traces.flush()
    assert exported.wait(20)
    let_go.set()


def test_switched_off_nothing_of_it_is_imported():
    code = (
        "import sys; from serving.tracing import Traces; Traces({}).around(None); print('opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

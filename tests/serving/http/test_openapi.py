import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from serving.errors import QueueFull
from serving.preparing import Preparer
from serving.settings import Settings
from serving.worker import Worker
from tests.serving.layered_model import write_layered_model
from tests.serving.tiny_model import write_tiny_model
from tests.serving.v2_worker import client_of, tiny_worker


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    write_layered_model(tmp_path, "tiny")
    worker = Worker(Settings(models=tmp_path, default_model="tiny", device="cpu", threads=1))
    await worker.catalogue.start()
    yield worker
    await worker.stop()


@pytest.fixture
async def client(worker: Worker) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(worker) as client:
        yield client


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, each) for path, methods in document["paths"].items() for method, each in methods.items()]


def request_of(path: str, operation: dict[str, Any]) -> tuple[str, dict[str, str], Any]:
    examples = {each["name"]: each["example"] for each in operation["parameters"] if "example" in each}
    query = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    return path.format(**examples), {name: value for name, value in examples.items() if name in query}, body


def same(shown: Any, answered: Any) -> bool:
    """Compare what is shown with an answer; what was cut says so, and reads are compared as far as they go."""
    if isinstance(shown, dict):
        return shown.keys() == answered.keys() and all(same(value, answered[key]) for key, value in shown.items())
    if isinstance(shown, list):
        cut = len(shown) < len(answered) or (shown and isinstance(shown[-1], str) and shown[-1].startswith("... "))
        kept = shown[:-1] if cut else shown
        return all(same(one, other) for one, other in zip(kept, answered, strict=False))
    if isinstance(shown, str) and shown.endswith(" more characters"):
        return str(answered).startswith(shown.rpartition("... ")[0])
    return bool(shown == answered)


async def test_every_example_is_what_the_service_answers(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    assert len(operations(document)) == 10
    for method, path, operation in operations(document):
        address, query, body = request_of(path, operation)
        answer = await client.request(method, address, params=query, json=body)
        assert answer.status_code == 200, path
        assert same(operation["responses"]["200"]["content"]["application/json"]["example"], answer.json()), path


async def test_the_example_of_a_picture_is_a_seven(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    example = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert example["model"] == {"name": "tiny", "version": "1"}
    assert set(example["predictions"][0]) >= {"digit", "confidence", "probabilities", "accepted", "reasons", "input"}


# Routes that the page or a protocol's clients use, and that are described elsewhere or by their siblings.
UNDOCUMENTED = {"/", "/docs", "/openapi.json", "/web/{digest}/{name}", "/healthz", "/metrics"}


async def test_every_operation_is_a_route_of_the_app(worker: Worker, client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    known = {route.path for route in worker.app.routes if isinstance(route, Route)}
    known |= {path.replace("{name}", "{model}") for path in known if path.startswith("/v2")}
    assert {path for _, path, _ in operations(document)} <= known
    ours = {path for path in known if not path.startswith("/v2")} - UNDOCUMENTED
    assert ours <= set(document["paths"])


def fits(document: dict[str, Any], schema: dict[str, Any], content: Any) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    return bool(jsonschema.Draft202012Validator(schema | {"components": document["components"]}).is_valid(content))


async def test_every_json_is_described_by_a_schema_that_it_fits(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    for method, path, operation in operations(document):
        address, query, body = request_of(path, operation)
        if body is not None:
            taken = operation["requestBody"]["content"]["application/json"]["schema"]
            assert fits(document, taken, body), path
            assert not fits(document, taken, {"picture": "seven.png"}), path
        answer = await client.request(method, address, params=query, json=body)
        given = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert fits(document, given, answer.json()), path
        assert not fits(document, given, {"error": "none"}), path
    blank, broken = {"pixels": [0] * 784}, {"images": ["AAAA"]}
    predictions = {"$ref": "#/components/schemas/Predictions"}
    for body in (blank, broken):
        assert fits(document, predictions, (await client.post("/predict?include=input", json=body)).json())
    both = (await client.post("/explain?include=layers,occlusion", json={"pixels": [9] * 784})).json()
    assert fits(document, {"$ref": "#/components/schemas/Explanation"}, both)


async def test_that_it_is_not_ready_is_described_too(client: httpx.AsyncClient, tmp_path: Path):
    document = (await client.get("/openapi.json")).json()
    starting = Worker(Settings(models=tmp_path, default_model="tiny", device="cpu", threads=1))
    async with client_of(starting) as early:
        answer = await early.get("/readyz")
    await starting.stop()
    assert answer.status_code == 503
    described = document["paths"]["/readyz"]["get"]["responses"]["503"]["content"]["application/json"]["schema"]
    assert fits(document, described, answer.json())


async def test_whoever_sends_a_body_may_be_too_slow_too_large_or_too_many(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    sent = [operation for method, _, operation in operations(document) if method == "post"]
    assert len(sent) == 4
    for operation in sent:
        assert {"408", "413", "415", "429", "504"} <= set(operation["responses"]), operation["operationId"]


async def test_errors_are_described_by_their_schema(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    described = document["paths"]["/predict"]["post"]["responses"]
    error, predictions = ({"$ref": f"#/components/schemas/{name}"} for name in ("Error", "Predictions"))
    assert described["400"]["content"]["application/json"]["schema"] == error
    assert described["422"]["content"]["application/json"]["schema"] == {"anyOf": [error, predictions]}
    failed = await client.post("/predict", content=b"no picture at all")
    assert failed.status_code == 422
    assert set(failed.json()) == set(document["components"]["schemas"]["Predictions"]["required"])
    broken = await client.post("/predict", content=b"")
    assert set(broken.json()) == set(document["components"]["schemas"]["Error"]["required"])


async def predictions(client: httpx.AsyncClient) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("mnist_predictions_total"))


async def test_the_document_is_made_once_for_a_version(worker: Worker, client: httpx.AsyncClient, tmp_path: Path):
    first = (await client.get("/openapi.json")).content
    asked = await predictions(client)
    assert asked > 0
    assert (await client.get("/openapi.json")).content == first
    assert await predictions(client) == asked
    write_layered_model(tmp_path, "tiny", version=2)
    await worker.catalogue.reload()
    assert (await client.get("/openapi.json")).content != first


async def test_what_an_instance_does_not_offer_is_shown_as_its_error(tmp_path: Path):
    write_tiny_model(tmp_path)
    worker = Worker(Settings(models=tmp_path, default_model="tiny", device="cpu", threads=1, explain=False))
    await worker.catalogue.start()
    async with client_of(worker) as client:
        document = (await client.get("/openapi.json")).json()
    await worker.stop()
    answer = document["paths"]["/explain"]["get"]["responses"]["501"]
    assert answer["description"].startswith("Not offered")
    assert answer["content"]["application/json"]["example"] == {
        "error": "explanations are switched off here; MNIST_EXPLAIN=true switches them on"
    }


async def test_before_a_model_is_there_it_says_so(tmp_path: Path):
    worker = Worker(Settings(models=tmp_path, default_model="tiny", device="cpu", threads=1))
    async with client_of(worker) as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 503
    await worker.stop()


async def document_of(root: Path, **settings: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {settings.get('token', '')}"}
    async with tiny_worker(root, **settings) as worker, client_of(worker) as client:
        answer = await client.get("/openapi.json", headers=headers)
        assert answer.status_code == 200
        document: dict[str, Any] = answer.json()
        return document


HEALTH = {"/livez", "/readyz"}


async def test_where_a_token_is_needed_the_document_says_so(tmp_path: Path):
    document = await document_of(tmp_path, token="secret", rate_limit=1000)
    assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    for _, path, operation in operations(document):
        if path in HEALTH:
            assert "security" not in operation
            assert not {"401", "429"} & set(operation["responses"])
        else:
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "429"} <= set(operation["responses"])


async def test_a_rate_limit_alone_needs_no_token(tmp_path: Path):
    document = await document_of(tmp_path, rate_limit=1000)
    assert "securitySchemes" not in document["components"]
    for _, path, operation in operations(document):
        assert "security" not in operation
        assert "401" not in operation["responses"]
        assert path in HEALTH or "429" in operation["responses"]


async def test_where_everybody_may_ask_no_token_is_described(tmp_path: Path):
    document = await document_of(tmp_path)
    assert "securitySchemes" not in document["components"]
    for _, path, operation in operations(document):
        assert "security" not in operation
        assert "401" not in operation["responses"]
        read = {"/predict", "/explain", "/v2/models/{model}/infer", "/v2/repository/index"}
        assert path in read or "429" not in operation["responses"]


async def test_an_example_that_is_refused_for_a_moment_is_shown_as_it_is_answered_and_not_kept(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(_: Preparer, pictures: list[bytes], __: float) -> list[QueueFull]:
        return [QueueFull("no room", 1.0)] * len(pictures)

    with monkeypatch.context() as patch:
        patch.setattr(Preparer, "prepare", refuse)
        document = (await client.get("/openapi.json")).json()
    answer = document["paths"]["/predict"]["post"]["responses"]["429"]
    assert answer["content"]["application/json"]["example"]["predictions"] == [{"error": "no room", "source": 0}]
    assert answer["description"].startswith("Too much is waiting")
    # It was so for a moment; later the examples are answered.
    document = (await client.get("/openapi.json")).json()
    assert "example" in document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]


async def test_those_who_ask_at_once_get_one_document(client: httpx.AsyncClient):
    answers = await asyncio.gather(*(client.get("/openapi.json") for _ in range(4)))
    assert len({answer.content for answer in answers}) == 1
    assert await predictions(client) == 2  # by /predict and by the protocol's own route

"""The Open Inference Protocol v2 over HTTP: every route below /v2.

Must not know: tensors, how a model is run.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.access import Access
from serving.catalogue import Catalogue
from serving.errors import InvalidInput, NotReady, UnsupportedMediaType, shown
from serving.heavy import alone, take_apart
from serving.http.bodies import BodyReader
from serving.http.compression import MIN_PACKED_BYTES, choose_encoding, pack, packed_by, refuse_packed, unpack
from serving.http.errors import json_response
from serving.http.strict_json import read_json
from serving.http.v2_messages import JSON, JSON_BYTES, OCTETS, read_request, text_bytes, write_response
from serving.limits import Limits
from serving.predictor import Predictor
from serving.protocol import descriptions
from serving.protocol.inference import Inference
from serving.protocol.messages import InferenceRequest
from serving.protocol.statistics import Statistics
from serving.settings import Settings

# tritonclient sends no type at all.
MEDIA_TYPES = ("", JSON, OCTETS)


class V2Endpoints:
    """Answers the routes of the protocol.

    Args:
        catalogue: the models.
        inference: runs requests.
        statistics: counts of what ran.
        bodies: reads what is sent.
        access: knows who may load and unload models.
        settings: limits, and whether the repository has a port of its own.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        inference: Inference,
        statistics: Statistics,
        bodies: BodyReader,
        access: Access,
        settings: Settings,
    ):
        self._catalogue, self._inference, self._statistics = catalogue, inference, statistics
        self._bodies, self._access = bodies, access
        self._settings, self._limits = settings, Limits.of(settings)
        self._server = descriptions.server_metadata(may_load=access.administered and not settings.admin_port)

    def routes(self) -> list[Route]:
        """Return the routes, the busiest first, without those of the repository."""
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes = [Route(f"{place}/infer", self.infer, methods=["POST"]) for place in (model, version)]
        routes += [
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
            Route("/v2", self.server_metadata, methods=["GET"]),
            Route("/v2/models/stats", self.all_statistics, methods=["GET"]),
        ]
        for place in (model, version):
            routes += [
                Route(place, self.model_metadata, methods=["GET"]),
                Route(f"{place}/ready", self.model_ready, methods=["GET"]),
                Route(f"{place}/config", self.model_config, methods=["GET"]),
                Route(f"{place}/stats", self.model_statistics, methods=["GET"]),
            ]
        return routes

    def management(self) -> list[Route]:
        """Return the routes of the repository; those that change what is served only if there is a token."""
        routes = [Route("/v2/repository/index", self.index, methods=["POST"])]
        if self._access.administered:
            place = "/v2/repository/models/{model}"
            routes.append(Route(f"{place}/load", self.load, methods=["POST"]))
            routes.append(Route(f"{place}/unload", self.unload, methods=["POST"]))
        return routes

    def _find(self, request: Request) -> Predictor:
        path = request.path_params
        predictor = self._catalogue.get(path["model"], path.get("version"))
        request.scope["model"] = predictor.name
        return predictor

    async def infer(self, request: Request) -> Response:
        """Run the model on the tensors of the body."""
        predictor, headers = self._find(request), request.headers
        check_media_type(headers.get("content-type", ""))
        body = await self._bodies.read(request)
        deadline = time.monotonic() + self._settings.request_timeout_s
        read = await self._take_apart(body, headers, deadline)
        response = await self._inference.run(predictor, read, deadline)
        content, answer_headers = write_response(response)
        if len(content) >= MIN_PACKED_BYTES and (encoding := choose_encoding(headers.get("accept-encoding", ""))):
            content = await pack(content, encoding, deadline)
            answer_headers["content-encoding"] = encoding
        return Response(content, headers=answer_headers)

    async def _take_apart(self, body: bytes, headers: Headers, deadline: float) -> InferenceRequest:
        json_bytes, limits = headers.get(JSON_BYTES), self._limits
        encoding = packed_by(headers.get("content-encoding", ""))
        if encoding is None:
            return await take_apart(text_bytes(body, json_bytes), deadline, read_request, body, json_bytes, limits)
        # In one piece of work: an unpacked body is gone before the next one is unpacked.
        unpack_body = partial(unpack, body, encoding, self._bodies.max_bytes)
        read = await alone(lambda: read_request(unpack_body(), json_bytes, limits), deadline)
        if isinstance(read.content, list):
            self._bodies.hold(sum(map(len, read.content)))
        return read

    async def live(self, _: Request) -> Response:
        """Answer as long as the event loop turns."""
        return json_response({"live": True})

    async def ready(self, _: Request) -> Response:
        """Answer 200 when requests should be sent here, else 503."""
        ready = self._catalogue.ready
        return json_response({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """Answer 200 when a model answers, 503 when it is known but does not."""
        name = request.path_params["model"]
        try:
            self._find(request)
            ready = not self._catalogue.draining
        except NotReady:
            ready = False
        return json_response({"name": name, "ready": ready}, 200 if ready else 503)

    async def server_metadata(self, _: Request) -> Response:
        """Describe the server."""
        return json_response(self._server)

    async def model_metadata(self, request: Request) -> Response:
        """Describe a model's versions and tensors."""
        predictor = self._find(request)
        versions = self._catalogue.versions(predictor.name)
        return json_response(descriptions.model_metadata(predictor, versions))

    async def model_config(self, request: Request) -> Response:
        """Describe how a model is run."""
        return json_response(descriptions.model_config(self._find(request), self._settings))

    async def model_statistics(self, request: Request) -> Response:
        """Count what a model, or one version of it, has done."""
        self._find(request)
        path = request.path_params
        return json_response(await self._statistics.of(path["model"], path.get("version", "")))

    async def all_statistics(self, _: Request) -> Response:
        """Count what all models have done."""
        return json_response(await self._statistics.of())

    async def index(self, request: Request) -> Response:
        """List every version in the repository; the body may ask for the ready ones alone."""
        options = await self._read_options(request)
        only_ready = options.get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidInput(f"ready: expected true or false, got {shown(only_ready)}")
        return json_response(descriptions.repository_index(self._catalogue, only_ready=only_ready))

    async def load(self, request: Request) -> Response:
        """Load what is new of a model, once it has passed its checks."""
        self._access.check_administrator(request.headers.get("authorization", ""))
        descriptions.refuse_overrides(await self._read_options(request))
        await self._catalogue.load(request.path_params["model"])
        return Response(status_code=200)

    async def unload(self, request: Request) -> Response:
        """Serve a model no longer."""
        self._access.check_administrator(request.headers.get("authorization", ""))
        await self._read_options(request)
        await self._catalogue.unload(request.path_params["model"])
        return Response(status_code=200)

    async def _read_options(self, request: Request) -> dict[str, Any]:
        """Return the JSON object in the body; clients also send nothing."""
        check_media_type(request.headers.get("content-type", ""))
        refuse_packed(request.headers.get("content-encoding", ""))
        body = await self._bodies.read(request)
        deadline = time.monotonic() + self._settings.request_timeout_s
        options = (await take_apart(len(body), deadline, read_json, body, self._limits)).root if body else {}
        if not isinstance(options, dict):
            raise InvalidInput("expected an object or no body")
        return options


def check_media_type(content_type: str, allowed: Sequence[str] = MEDIA_TYPES) -> None:
    """Refuse a body that is declared to be of another kind than is allowed, by default the protocol's.

    Raises:
        UnsupportedMediaType: says what it is and what was expected.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in allowed:
        named = " or ".join(filter(None, allowed))
        raise UnsupportedMediaType(f"Content-Type {media_type[:80]!r}: expected {named}")

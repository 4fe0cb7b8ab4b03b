"""The calls of GRPCInferenceService.

Must not know: tensors, how a model is run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from serving.access import Access
from serving.catalogue import Catalogue
from serving.errors import NotReady
from serving.grpc import core_call
from serving.grpc.calls import Call, Check, Gate, Metered, Method, Read
from serving.grpc.express import METHOD, Express
from serving.grpc.extent import INFER_REQUEST, NOTHING, check_extent
from serving.grpc.messages import read_request, text_bytes, write_response
from serving.grpc.stubs import inference_pb2 as pb
from serving.heavy import take_apart
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.protocol import descriptions
from serving.protocol.inference import Inference
from serving.protocol.statistics import Statistics
from serving.settings import Settings
from serving.tracing import Traces

NAME = "inference.GRPCInferenceService"

# The protocol's own questions after health, which need no token.
OPEN = {"ServerLive", "ServerReady"}

M = TypeVar("M", bound=Message)
Handler = Callable[[bytes, core_call.Context], Awaitable[Any]]


class InferenceService:
    """Answers the calls of the protocol; see `inference.proto`.

    Args:
        catalogue: the models.
        inference: runs requests.
        statistics: counts of what ran.
        access: knows who may ask, and who may load and unload models.
        settings: what the models' configuration is made of, and whether the repository has a port of its own.
        traces: have a span of each call but the questions after health.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        inference: Inference,
        statistics: Statistics,
        access: Access,
        settings: Settings,
        traces: Traces,
    ):
        self._catalogue, self._inference, self._statistics = catalogue, inference, statistics
        self._settings, self._traces = settings, traces
        self.access = access
        self._may_load = access.administered and not settings.admin_port
        self._server = descriptions.server_metadata(may_load=self._may_load)

    def handler(self, metrics: Metrics, gate: Gate) -> grpc.GenericRpcHandler:
        """Return what a gRPC server needs; to a call that is not there it answers UNIMPLEMENTED."""
        described = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        handlers = {}
        for name, method in self._methods().items():
            types = described.methods_by_name[name]
            read = self._read(name, GetMessageClass(types.input_type).FromString)
            check, settings = self._check_of(name), self._settings
            run = Metered(name, read, method, metrics, settings.access_log, gate, check, settings.request_timeout_s).run
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                self._traced(name, run) if self._traces.on and name not in OPEN else run,
                response_serializer=GetMessageClass(types.output_type).SerializeToString,
            )
        return grpc.method_handlers_generic_handler(NAME, handlers)

    def _read(self, name: str, parse: Read) -> Read:
        large, max_images = INFER_REQUEST if name == METHOD else NOTHING, self._settings.max_images

        def read(message: bytes) -> Any:
            check_extent(message, large, max_images)
            return parse(message)

        return read

    def _traced(self, name: str, run: Handler) -> Handler:
        async def traced(request: bytes, context: core_call.Context) -> Any:
            with self._traces.call(NAME, name, context.invocation_metadata()) as span:
                try:
                    return await run(request, context)
                except asyncio.CancelledError:  # its caller has gone, and is sent no status
                    context.status = grpc.StatusCode.CANCELLED.value[0]
                    raise
                finally:
                    span.set_attribute("rpc.grpc.status_code", context.status)

        return traced

    def express(self, metrics: Metrics, gate: Gate) -> dict[str, core_call.Express]:
        """Return who answers ordinary calls before the event loop; nobody where all calls are to be seen there."""
        if self.access.limited or self._settings.access_log or self._traces.on:
            return {}
        return {f"/{NAME}/{METHOD}": Express(self._catalogue, metrics, gate, self._settings.max_images).answer}

    def _check_of(self, name: str) -> Check | None:
        """Return what looks who calls a method, where that matters."""
        if name in OPEN or not self.access.limited:
            return None
        return lambda call: self.access.check_caller(call.metadata("authorization"), call.address)

    def _methods(self) -> dict[str, Method]:
        """Return the calls that are offered; those that change what is served only if there is a token."""
        methods: dict[str, Method] = {
            "ModelInfer": self.infer,
            "ServerLive": self.live,
            "ServerReady": self.ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.index,
        }
        if self._settings.admin_port:
            del methods["RepositoryIndex"]
        if self._may_load:
            methods |= {"RepositoryModelLoad": self.load, "RepositoryModelUnload": self.unload}
        return methods

    def _find(self, name: str, version: str, call: Call) -> Predictor:
        predictor = self._catalogue.get(name, version)
        call.model = predictor.name
        return predictor

    async def infer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        """Run the model on the tensors of the request, before the caller's deadline."""
        predictor = self._find(request.model_name, request.model_version, call)
        max_images = self._settings.max_images
        read = await take_apart(text_bytes(request), call.deadline, read_request, request, max_images)
        response = await self._inference.run(predictor, read, call.deadline)
        return write_response(response)

    async def live(self, _: pb.ServerLiveRequest, __: Call) -> pb.ServerLiveResponse:
        """Answer as long as the event loop turns."""
        return pb.ServerLiveResponse(live=True)

    async def ready(self, _: pb.ServerReadyRequest, __: Call) -> pb.ServerReadyResponse:
        """Say whether requests should be sent here."""
        return pb.ServerReadyResponse(ready=self._catalogue.ready)

    async def model_ready(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """Say whether a model answers."""
        try:
            self._find(request.name, request.version, call)
        except NotReady:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self._catalogue.draining)

    async def server_metadata(self, _: pb.ServerMetadataRequest, __: Call) -> pb.ServerMetadataResponse:
        """Describe the server."""
        return _message(self._server, pb.ServerMetadataResponse)

    async def model_metadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        """Describe a model's versions and tensors."""
        predictor = self._find(request.name, request.version, call)
        described = descriptions.model_metadata(predictor, self._catalogue.versions(predictor.name))
        return _message(described, pb.ModelMetadataResponse)

    async def model_config(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        """Describe how a model is run."""
        predictor = self._find(request.name, request.version, call)
        config = descriptions.model_config(predictor, self._settings)
        return _message({"config": config}, pb.ModelConfigResponse)

    async def model_statistics(self, request: pb.ModelStatisticsRequest, call: Call) -> pb.ModelStatisticsResponse:
        """Count what all models, one, or one version of it, have done."""
        if request.name:
            self._find(request.name, request.version, call)
        return _message(await self._statistics.of(request.name, request.version), pb.ModelStatisticsResponse)

    async def index(self, request: pb.RepositoryIndexRequest, _: Call) -> pb.RepositoryIndexResponse:
        """List every version in the repository."""
        models = descriptions.repository_index(self._catalogue, only_ready=request.ready)
        return _message({"models": models}, pb.RepositoryIndexResponse)

    async def load(self, request: pb.RepositoryModelLoadRequest, call: Call) -> pb.RepositoryModelLoadResponse:
        """Load what is new of a model, once it has passed its checks."""
        self.access.check_administrator(call.metadata("authorization"))
        descriptions.refuse_overrides({"parameters": request.parameters})
        await self._catalogue.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest, call: Call) -> pb.RepositoryModelUnloadResponse:
        """Serve a model no longer."""
        self.access.check_administrator(call.metadata("authorization"))
        await self._catalogue.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


def _message(content: dict[str, Any], kind: type[M]) -> M:
    return ParseDict(content, kind())

"""GET /livez, /readyz and /metrics.

Must not know: what a model is.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.catalogue import Catalogue
from serving.http.errors import json_response
from serving.metrics import Metrics, expose


class HealthEndpoints:
    """Answers whether this process lives, whether it is ready, and what it has done.

    Args:
        catalogue: knows whether the models are ready.
        metrics: of the whole service.
    """

    def __init__(self, catalogue: Catalogue, metrics: Metrics):
        self._catalogue, self._metrics = catalogue, metrics

    def routes(self) -> list[Route]:
        """Return the routes of health; /healthz is another name of /livez."""
        return [
            Route("/livez", self.live, methods=["GET"]),
            Route("/healthz", self.live, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
        ]

    def management(self) -> list[Route]:
        """Return the route of the metrics."""
        return [Route("/metrics", self.show_metrics, methods=["GET"])]

    async def live(self, _: Request) -> Response:
        """Answer 200 as long as the event loop turns."""
        return json_response({"live": True})

    async def ready(self, _: Request) -> Response:
        """Answer 200 when requests should be sent here, else 503."""
        ready = self._catalogue.ready
        return json_response({"ready": ready}, 200 if ready else 503)

    async def show_metrics(self, request: Request) -> Response:
        """Answer with every metric of every worker, as Prometheus or OpenMetrics text."""
        accept = request.headers.get("accept", "")
        await self._metrics.settle()
        content, content_type = await asyncio.to_thread(expose, self._metrics.registry, accept)
        return Response(content, headers={"content-type": content_type})

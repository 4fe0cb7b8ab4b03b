"""The one Starlette app: every route, whichever listener it is reached by.

Must not know: listeners, BentoML.
"""

from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from serving.access import Access
from serving.catalogue import Catalogue
from serving.http.bodies import BodyReader
from serving.http.entrance import Entrance
from serving.http.errors import ErrorHandlers
from serving.http.explain import ExplainEndpoint
from serving.http.health import HealthEndpoints
from serving.http.metering import Metering
from serving.http.openapi import OpenApiEndpoint
from serving.http.page import PageEndpoints
from serving.http.predict import PredictEndpoint
from serving.metrics import Metrics
from serving.preparing import Preparer
from serving.settings import Settings

# What a page of elsewhere may send and read; no cookies, which are not used.
CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": ["authorization", "content-type", "inference-header-content-length", "x-request-id"],
    "expose_headers": ["inference-header-content-length", "retry-after", "x-request-id"],
}


def create_app(
    catalogue: Catalogue,
    preparer: Preparer,
    bodies: BodyReader,
    access: Access,
    settings: Settings,
    metrics: Metrics,
    more_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Return the app.

    Args:
        catalogue: the models.
        preparer: prepares pictures.
        bodies: reads what is sent.
        access: knows who may ask.
        settings: limits and switches.
        metrics: of the whole service.
        more_routes: of other protocols; they may raise ServingError, and say in `scope["model"]` which model answers.
    """
    predict = PredictEndpoint(catalogue, preparer, bodies, settings, metrics)
    health = HealthEndpoints(catalogue, metrics)
    explain = ExplainEndpoint(catalogue, preparer, bodies, settings)
    page = PageEndpoints(catalogue, settings)
    routes = [*predict.routes(), *more_routes, *health.routes(), *explain.routes(), *page.routes()]
    if not settings.admin_port:
        routes += health.management()
    app = assemble(routes, catalogue, access, settings, metrics)
    openapi = OpenApiEndpoint(catalogue, app.router, access, rate_limited=settings.rate_limit > 0)
    app.router.routes += openapi.routes()
    return app


def create_admin_app(
    catalogue: Catalogue, access: Access, settings: Settings, metrics: Metrics, more_routes: Sequence[BaseRoute]
) -> Starlette:
    """Return the app of the administrators' port: health, metrics and the further routes."""
    health = HealthEndpoints(catalogue, metrics)
    return assemble([*health.routes(), *health.management(), *more_routes], catalogue, access, settings, metrics)


def assemble(
    routes: Sequence[BaseRoute], catalogue: Catalogue, access: Access, settings: Settings, metrics: Metrics
) -> Starlette:
    """Return the app of these routes, behind what every request goes through."""
    middleware = [Middleware(Metering, catalogue=catalogue, metrics=metrics, access_log=settings.access_log)]
    if settings.allowed_origins:
        middleware.append(Middleware(CORSMiddleware, allow_origins=settings.allowed_origins, **CORS))
    if access.limited:
        middleware.append(Middleware(Entrance, access=access, metrics=metrics))
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=ErrorHandlers(metrics).table())
    # A path with a slash too many is not found, as the protocol's clients expect; a redirect would lose their body.
    app.router.redirect_slashes = False
    return app

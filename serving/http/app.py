"""The one Starlette app: every route, whichever listener it is reached by.

Must not know: listeners, BentoML.
"""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from serving.catalogue import Catalogue
from serving.http.bodies import BodyReader
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


def create_app(
    catalogue: Catalogue,
    preparer: Preparer,
    bodies: BodyReader,
    settings: Settings,
    metrics: Metrics,
    more_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Return the app.

    Args:
        catalogue: the models.
        preparer: prepares pictures.
        bodies: reads what is sent.
        settings: limits and switches.
        metrics: of the whole service.
        more_routes: of other protocols; they may raise ServingError, and say in `scope["model"]` which model answers.
    """
    predict = PredictEndpoint(catalogue, preparer, bodies, settings)
    health = HealthEndpoints(catalogue, metrics)
    explain = ExplainEndpoint(catalogue, preparer, bodies, settings)
    page = PageEndpoints(catalogue, settings)
    app = Starlette(
        routes=[*predict.routes(), *more_routes, *health.routes(), *explain.routes(), *page.routes()],
        middleware=[Middleware(Metering, catalogue=catalogue, metrics=metrics, access_log=settings.access_log)],
        exception_handlers=ErrorHandlers(metrics).table(),
    )
    app.router.routes += OpenApiEndpoint(catalogue, app.router).routes()
    # A path with a slash too many is not found, as the protocol's clients expect; a redirect would lose their body.
    app.router.redirect_slashes = False
    return app

"""The page at `/`, its files, and what it needs to know of the models.

Must not know: how a picture is read, how a network is explained.
"""

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.catalogue import Catalogue
from serving.http.compression import choose_encoding
from serving.http.errors import json_response
from serving.manifest import Accuracy
from serving.predictor import Predictor
from serving.settings import Settings

FOLDER = Path(__file__).parent.parent / "web"

# Nothing from elsewhere, nothing inline. Pictures that were dropped or answered are blob: and data: URLs.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# Beside those on every answer, see `protection`.
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), clipboard-read=(self), clipboard-write=(self), geolocation=(), microphone=()",
}

FOREVER = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"

# Below this a header costs more than what compression saves.
WORTH_COMPRESSING_BYTES = 600

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


@dataclass(frozen=True)
class StaticFile:
    """A file in memory, plain and compressed; its tag is weak because it stands for both."""

    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str


def _static_file(name: str, content: bytes) -> StaticFile:
    suffix = Path(name).suffix
    media_type = TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
    compressed = gzip.compress(content, mtime=0) if len(content) >= WORTH_COMPRESSING_BYTES else None
    return StaticFile(content, compressed, media_type, f'W/"{hashlib.sha256(content).hexdigest()[:32]}"')


class Site:
    """The files of the page, read once.

    Their addresses hold a digest of them all, `web/DIGEST/app.js`, so that browsers keep them for good and never mix
    two releases.

    Args:
        folder: HTML files, which answer at their own addresses, and what they link to as `web/NAME`.
    """

    def __init__(self, folder: Path = FOLDER):
        contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        self.digest = hashlib.sha256(
            b"".join(name.encode() + content for name, content in contents.items())
        ).hexdigest()[:16]
        self._files = {name: _static_file(name, self._address(name, content)) for name, content in contents.items()}

    def _address(self, name: str, content: bytes) -> bytes:
        """Put the digest into the links of an HTML file."""
        if not name.endswith(".html"):
            return content
        return re.sub(rb'((?:src|href)=")web/', rb"\1web/" + self.digest.encode() + b"/", content)

    def answer(self, request: Request, name: str, caching: str) -> Response:
        """Return a file, or that the browser has it already.

        Raises:
            HTTPException: there is no such file.
        """
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        headers = {**SECURITY_HEADERS, "etag": file.etag, "cache-control": caching, "vary": "accept-encoding"}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if file.compressed and choose_encoding(request.headers.get("accept-encoding", "")) == "gzip":
            return Response(
                file.compressed, headers={**headers, "content-encoding": "gzip"}, media_type=file.media_type
            )
        return Response(file.content, headers=headers, media_type=file.media_type)


class PageEndpoints:
    """Answers `/`, `/docs`, `/web/DIGEST/NAME` and `/models`.

    Args:
        catalogue: the models.
        settings: what is switched on, and on which ports.
    """

    def __init__(self, catalogue: Catalogue, settings: Settings):
        self._catalogue, self._settings = catalogue, settings
        self._site = Site()

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.index, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
            Route("/web/{digest}/{name}", self.file, methods=["GET"]),
            Route("/models", self.models, methods=["GET"]),
        ]

    async def index(self, request: Request) -> Response:
        """Return the page."""
        return self._site.answer(request, "index.html", ASK_FIRST)

    async def docs(self, request: Request) -> Response:
        """Return the page that shows the API's documentation."""
        return self._site.answer(request, "docs.html", ASK_FIRST)

    async def file(self, request: Request) -> Response:
        """Return a file of the page; one that was asked for by an older release's address is not kept."""
        current = request.path_params["digest"] == self._site.digest
        return self._site.answer(request, request.path_params["name"], FOREVER if current else ASK_FIRST)

    async def models(self, _: Request) -> Response:
        """Return the models that are served, the default one first, and what this instance offers."""
        default = self._catalogue.default_model
        names = sorted(self._catalogue.names(), key=lambda name: name != default)
        content = {
            "default_model": default,
            "models": [_describe(self._catalogue.get(name)) for name in names],
            "explain": self._settings.explain,
            "grpc_port": self._settings.grpc_port,
        }
        return json_response(content, headers={"cache-control": "no-store"})


def _describe(predictor: Predictor) -> dict[str, object]:
    manifest = predictor.manifest
    return {
        "name": predictor.name,
        "version": predictor.version,
        "description": manifest.description,
        "test_accuracy": _test_accuracy(manifest.accuracy),
        "parameters": manifest.training.parameters,
        "multiply_adds": manifest.training.multiply_adds,
        "min_confidence": manifest.acceptance.min_confidence,
        "layers": manifest.layers is not None,
    }


def _test_accuracy(measured: list[Accuracy]) -> float | None:
    return next((record.accuracy for record in measured if record.split == "test"), None)

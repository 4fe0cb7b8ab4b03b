"""The hot path: an ordinary prediction, from the request's bytes to the answer's, in one step, before any router.

What is ordinary can be answered at once: a small body that is there, a model that is idle, nothing wrong. Everything
else - another route, an error, a wait - is left to the app, which reads the request from the beginning.
Must not know: connections.
"""

import re
import time

import orjson

from serving.access import Access
from serving.catalogue import Catalogue
from serving.heavy import INLINE_TEXT_BYTES
from serving.http.compression import MIN_PACKED_BYTES, choose_encoding, pack_now
from serving.http.pictures import read_items
from serving.http.predict import complete, describe, encoded
from serving.http.v2 import check_media_type
from serving.http.v2_messages import JSON, JSON_BYTES, read_request, write_response
from serving.limits import Limits
from serving.logs import choose_request_id
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.preparing import Preparer
from serving.preprocess import Prepared
from serving.protocol.inference import run_now
from serving.settings import Settings

NAME = rb"([A-Za-z0-9._-]+)"
INFER = re.compile(rb"/v2/models/%b(?:/versions/(\d+))?/infer" % NAME)
PREDICT = re.compile(rb"/predict(?:\?model=%b)?" % NAME)

# Routes as the metrics name them, without and with a version.
INFER_ROUTES = "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"

Headers = list[tuple[bytes, bytes]]
Fields = dict[str, str]


def is_allowed(access: Access, settings: Settings) -> bool:
    """Return whether requests may go past the app: nothing that is switched on has to see them there."""
    return not (access.limited or settings.allowed_origins or settings.access_log)


class Express:
    """Answers ordinary requests.

    Args:
        catalogue: the models.
        preparer: prepares pictures.
        settings: limits.
        metrics: told of every request that is answered.
    """

    def __init__(self, catalogue: Catalogue, preparer: Preparer, settings: Settings, metrics: Metrics):
        self._catalogue, self._preparer, self._metrics = catalogue, preparer, metrics
        self._limits, self._max_bytes = Limits.of(settings), min(settings.max_body_bytes, INLINE_TEXT_BYTES)

    def answer(self, url: bytes, headers: Headers, body: bytes) -> bytes | None:
        """Answer a POST.

        Args:
            url: path and query, as sent.
            headers: names in lower case.
            body: whole.

        Returns:
            The header lines of an answer of status 200, and its content; None where it is the app's to answer.
        """
        started = time.perf_counter()
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        if len(fields) < len(headers) or "content-encoding" in fields or len(body) > self._max_bytes:
            return None
        try:
            answer = self._dispatch(url, fields, body)
        except Exception:
            # The app comes upon the same, tells the caller and, where it is our fault, the log.
            return None
        if answer is None:
            return None
        route, model, content, lines = answer
        self._metrics.request("http", "POST", route, model, "200", time.perf_counter() - started)
        own_id = choose_request_id(fields.get("x-request-id", ""))
        return f"{lines}content-length: {len(content)}\r\nx-request-id: {own_id}\r\n\r\n".encode("latin-1") + content

    def _dispatch(self, url: bytes, fields: Fields, body: bytes) -> tuple[str, str, bytes, str] | None:
        """Return route, model, content and header lines of the answer."""
        if self._catalogue.draining:
            return None
        if found := INFER.fullmatch(url):
            predictor = self._catalogue.get(found[1].decode(), found[2].decode() if found[2] else None)
            answer = self._infer(predictor, fields, body) if predictor.batcher.idle else None
            return answer and (INFER_ROUTES[found[2] is not None], predictor.name, *answer)
        if found := PREDICT.fullmatch(url):
            predictor = self._catalogue.get(found[1].decode() if found[1] else None)
            answer = self._predict(predictor, fields, body) if predictor.batcher.idle else None
            return answer and ("/predict", predictor.name, *answer)
        return None

    def _infer(self, predictor: Predictor, fields: Fields, body: bytes) -> tuple[bytes, str] | None:
        """Run the model on the tensor of an inference request."""
        check_media_type(fields.get("content-type", ""))
        response = run_now(predictor, read_request(body, fields.get(JSON_BYTES), self._limits))
        if response is None:
            return None
        content, headers = write_response(response)
        if len(content) >= MIN_PACKED_BYTES and (encoding := choose_encoding(fields.get("accept-encoding", ""))):
            content = pack_now(content, encoding)
            headers["content-encoding"] = encoding
        return content, "".join([f"{name}: {value}\r\n" for name, value in headers.items()])

    def _predict(self, predictor: Predictor, fields: Fields, body: bytes) -> tuple[bytes, str] | None:
        """Read the digits of pictures, all of which can be read."""
        items = read_items(body, fields.get("content-type", ""), self._limits)
        decoded = self._preparer.prepare_now(encoded(items))
        results = complete(items, decoded) if decoded is not None else []
        prepared = [result for result in results if isinstance(result, Prepared)]
        if not items or len(prepared) < len(items):
            return None
        predictions = predictor.predict_now(prepared)
        if predictions is None:
            return None
        content = describe(predictor, items, prepared, predictions, include_input=False)
        return orjson.dumps(content), f"content-type: {JSON}\r\n"

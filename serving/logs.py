"""Logs: one line per event, as JSON or for the console, with the id of the request.

Must not know: transports.
"""

import itertools
import json
import logging
import re
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

# What a caller's own id may be: no white space, no quotes, nothing that breaks a header or a line of a log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@#-]{1,128}")

# The id of the request that is being answered, or nothing outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Random digits of this process, and a count: a uuid4 for each request takes 2 us.
_PROCESS, _numbers = secrets.token_hex(8), itertools.count()

# Control characters and what else ends a line; a terminal obeys some of them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# Loggers that come with handlers of their own; their events belong into the same stream.
FOREIGN = ("bentoml", "uvicorn", "uvicorn.error", "uvicorn.access", "circus")

# What a record has without anybody's doing; the rest are fields that the event brings.
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def choose_request_id(given: str) -> str:
    """Return the id that the caller gave, if it may be one, else one that no other request has: 32 digits."""
    return given if given and REQUEST_ID.fullmatch(given) else f"{_PROCESS}{next(_numbers):016x}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if current := request_id.get():
        fields["request_id"] = current
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event as JSON, on one line."""
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        line = json.dumps(event, default=str, ensure_ascii=False)
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


class ConsoleFormatter(logging.Formatter):
    """One text per line: time, level, process, message, fields; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event as text; what breaks lines or a terminal obeys is escaped: nobody can forge a line."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        parts = [time, f"{record.levelname:7}", f"[{record.process}]", record.getMessage()]
        parts += [f"{name}={value}" for name, value in _fields(record).items()]
        line = _CONTROL.sub(lambda found: repr(found[0])[1:-1], " ".join(parts))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Send every event of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
        # They tell each step of a start and stop; ours tell it once.
        foreign.setLevel(level.upper() if level in ("debug", "error") else "WARNING")
    # They warn of each malformed form or request, which its sender is told, and the metrics count.
    logging.getLogger("python_multipart").setLevel("ERROR")
    # It logs a traceback for each call whose metadata are not UTF-8; they are read as Latin-1 then.
    logging.getLogger("grpc._cython.cygrpc").setLevel("CRITICAL")
    if level != "debug":
        logging.getLogger("uvicorn.error").setLevel("ERROR")

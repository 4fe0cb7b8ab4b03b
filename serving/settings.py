"""Every setting of the service, from the environment.

Must not know: what a setting is used for.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from serving.errors import ConfigurationError

PREFIX = "MNIST_"

# The ports keep the names that platforms set; every other setting is MNIST_ and its name.
UNPREFIXED = ("port", "v2_port", "grpc_port")

# What a browser sends as Origin; https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,*?#@\x80-\U0010ffff]+")
OWN_PORTS = {"http": ":80", "https": ":443"}

# What Kubernetes puts into each container for a Service whose name begins with "mnist", such as
# MNIST_READER_SERVICE_HOST; https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
KUBERNETES_LINK = re.compile(
    r"MNIST_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)=.*"
    r"|MNIST_(?:\w+_)?PORT=(?:tcp|udp|sctp)://.*",
    re.DOTALL,
)

DAY_S = 86_400
MOST = 2**31 - 1  # what gRPC and the system take for a number

Port = Annotated[int, Field(ge=1, le=65535)]
PortOrNone = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=DAY_S)]


def setting(default: Any, unit: str, meaning: str, **bounds: Any) -> Any:
    """Return a field with its default, unit, meaning and bounds."""
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit}, **bounds)


class Settings(BaseModel):
    """The settings of one instance; each field says what it means."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    models: Path = setting(Path("models"), "folder", "model repository, NAME/VERSION/model.onnx")
    default_model: str = setting("mnist-resnet", "name", "model that answers when a request names none")
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "auto, cpu, cuda", "where models run; cuda refuses to start elsewhere, auto says what it got"
    )
    threads: int = setting(
        0,
        "threads",
        "threads of one operator; 0 = CPU affinity and cgroup quota, divided by the workers",
        ge=0,
        le=1024,
    )
    host: str = setting("0.0.0.0", "IP address", "address that every listener binds")
    port: Port = setting(3000, "TCP port", "HTTP through BentoML: every route, and BentoML's own clients")
    v2_port: PortOrNone = setting(8000, "TCP port", "HTTP without BentoML's layers, the same routes; 0 = off")
    grpc_port: PortOrNone = setting(8001, "TCP port", "gRPC, Open Inference Protocol v2; 0 = off")
    admin_port: PortOrNone = setting(
        0, "TCP port", "HTTP for /metrics and /v2/repository, which are then on no other port; 0 = on all of them"
    )
    tls_cert: str = setting("", "file", "PEM certificate chain: TLS on every port, read again when it changes")
    tls_key: str = setting("", "file", "PEM private key of MNIST_TLS_CERT")
    workers: int = setting(1, "processes", "worker processes behind the ports", ge=1, le=256)
    max_batch_size: int = setting(
        64, "images", "largest batch that runs at once; larger requests are split", ge=1, le=65_536
    )
    queue_size: int = setting(
        2048,
        "images",
        "images that may wait in one worker for one model, and as many in requests larger than a batch; "
        "more are refused with 429",
        ge=1,
        le=MOST,
    )
    max_delay_ms: float = setting(
        0.0,
        "ms",
        "longest wait of an image for a batch to fill; 0 = run what waits when the model is free",
        ge=0,
        le=1000,
    )
    request_timeout_s: Seconds = setting(10.0, "s", "time for one request, queue included, then 504")
    head_timeout_s: Seconds = setting(
        10.0, "s", "time for a client to send the head of a request, then 408; gRPC: to shake hands"
    )
    body_timeout_s: Seconds = setting(
        30.0, "s", "time for a client to send its body, then 408, or to take its answer; gRPC: to send its message"
    )
    drain_s: float = setting(
        5.0, "s", "from SIGTERM, when readiness fails, to the closing of the listeners", ge=0, le=3600
    )
    stop_s: Seconds = setting(30.0, "s", "after the drain, longest wait for requests that are still running")
    watchdog_s: float = setting(
        20.0,
        "s",
        "longest that a worker, a model or a decoder may be stuck until the worker is replaced; 0 = for ever",
        ge=0,
        le=DAY_S,
    )
    max_connections: int = setting(
        1000,
        "connections",
        "on one port of one worker; then idle ones are closed, and more are refused with 429",
        ge=1,
        le=1_000_000,
    )
    max_head_bytes: int = setting(
        32_768, "bytes", "path and headers of one request, then 431; metadata of a call", ge=1024, le=MOST
    )
    max_body_bytes: int = setting(
        33_554_432, "bytes", "largest request body or gRPC message, also unpacked", ge=1024, le=MOST
    )
    max_pending_bytes: int = setting(
        268_435_456,
        "bytes",
        "bodies that one worker reads and works on, HTTP and gRPC apart; more are refused with 429",
        ge=1024,
        le=2**40,
    )
    max_pixels: int = setting(50_000_000, "pixels", "largest picture, by its header", ge=784, le=MOST)
    max_images: int = setting(2048, "images", "images in one request", ge=1, le=MOST)
    max_json_depth: int = setting(32, "levels", "lists and objects of a JSON body within each other", ge=8, le=512)
    max_json_values: int = setting(
        3_000_000,
        "values",
        "values of a JSON body, a list or an object as 16; 2048 images have 2.6 million",
        ge=1000,
        le=MOST,
    )
    max_part_header_bytes: int = setting(4096, "bytes", "one header line of a part of a form", ge=256, le=MOST)
    rate_limit: float = setting(
        0.0, "1/s", "requests of one address to one worker, more are refused with 429; 0 = any number", ge=0, le=1e6
    )
    token: SecretStr = setting(
        SecretStr(""), "text", "bearer token that callers need, except for health and the page; empty = none"
    )
    token_file: str = setting("", "file", "file of such tokens, one a line, read again when it changes")
    admin_token: SecretStr = setting(
        SecretStr(""), "text", "bearer token that allows to load and unload models; empty = nobody may"
    )
    admin_token_file: str = setting("", "file", "file of such tokens, one a line, read again when it changes")
    cors_origins: str = setting(
        "", "origins", "web pages of elsewhere that may call, such as https://a.example, commas between"
    )
    explain: bool = setting(True, "true, false", "answer /explain, which shows the inside of the networks")
    drift_window: int = setting(
        1000, "images", "latest images whose digits and ink are compared with training", ge=100, le=10**7
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "debug, info, warning, error", "least level that is logged"
    )
    log_format: Literal["json", "console"] = setting("console", "json, console", "one JSON object or one text per line")
    access_log: bool = setting(False, "true, false", "log one line for each request")

    @field_validator("cors_origins")
    @classmethod
    def _must_be_origins(cls, origins: str) -> str:
        for origin in filter(None, (each.strip() for each in origins.split(","))):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; expected one like https://page.example")
        return origins

    @field_validator("host")
    @classmethod
    def _must_be_an_address(cls, host: str) -> str:
        ipaddress.ip_address(host)
        return host

    @model_validator(mode="after")
    def _must_fit_together(self) -> "Settings":
        if self.max_images > self.queue_size:
            raise ValueError(f"MNIST_MAX_IMAGES={self.max_images}: expected at most MNIST_QUEUE_SIZE={self.queue_size}")
        if 0 < self.watchdog_s < 2:
            # A worker beats twice a second, if it is not busy.
            raise ValueError(f"MNIST_WATCHDOG_S={self.watchdog_s:g}: expected 0, or 2 and more")
        if 0 < self.rate_limit < 1 / DAY_S:
            raise ValueError(
                f"MNIST_RATE_LIMIT={self.rate_limit:g}: expected 0, or {1 / DAY_S:.3g} (one a day) and more"
            )
        if self.max_body_bytes > self.max_pending_bytes:
            raise ValueError(
                f"MNIST_MAX_BODY_BYTES={self.max_body_bytes}: expected at most MNIST_MAX_PENDING_BYTES="
                f"{self.max_pending_bytes}"
            )
        ports = [port for port in (self.port, self.v2_port, self.grpc_port, self.admin_port) if port]
        if len(set(ports)) < len(ports):
            raise ValueError("PORT, V2_PORT, GRPC_PORT, MNIST_ADMIN_PORT: expected different ports")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("MNIST_TLS_CERT, MNIST_TLS_KEY: expected both or none")
        for name, token, file in (
            ("TOKEN", self.token, self.token_file),
            ("ADMIN_TOKEN", self.admin_token, self.admin_token_file),
        ):
            if token.get_secret_value() and file:
                raise ValueError(f"MNIST_{name}, MNIST_{name}_FILE: expected one of them")
        return self

    @property
    def allowed_origins(self) -> list[str]:
        """The origins of `cors_origins`, as browsers send them."""
        return [_as_sent(origin.strip()) for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def max_delay_s(self) -> float:
        """`max_delay_ms` in seconds."""
        return self.max_delay_ms / 1000


def _as_sent(origin: str) -> str:
    scheme, _, host = origin.partition("://")
    own_port = OWN_PORTS.get(scheme)
    return f"{scheme}://{host.lower().removesuffix(own_port)}" if own_port else origin


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return field.upper() if field in UNPREFIXED else PREFIX + field.upper()


VARIABLES = {variable(field): field for field in Settings.model_fields}


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in VARIABLES:
            continue
        if KUBERNETES_LINK.fullmatch(f"{name}={value}"):
            continue
        # Without the value, which may be a secret.
        if name.removeprefix(PREFIX) in VARIABLES:
            raise ConfigurationError(f"{name}: there is no such setting; {name.removeprefix(PREFIX)} is")
        near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.0)
        raise ConfigurationError(f"{name}: there is no such setting; the nearest is {near[0]}")


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings that the environment asks for.

    Args:
        environ: such as `os.environ`; an empty value means the default.

    Raises:
        ConfigurationError: an unknown MNIST_ variable, or a value that is not allowed.
    """
    _refuse_unknown(environ)
    given = {field: environ[name].strip() for name, field in VARIABLES.items() if environ.get(name, "").strip()}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    field = str(first["loc"][0])
    secret = isinstance(Settings.model_fields[field].default, SecretStr)
    value = "(hidden)" if secret else repr(first["input"])
    return f"{variable(field)}={value}: {message[0].lower()}{message[1:]}; it is: {_meaning(field)}"


def _meaning(field: str) -> str:
    info = Settings.model_fields[field]
    return f"{info.description} ({unit_of(info)}, default {_text(info.default)})"


def unit_of(info: FieldInfo) -> str:
    """Return the unit of a field, or its allowed values."""
    extra = info.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else "(empty)"
    return (str(value).lower() if isinstance(value, bool) else str(value)) or "(empty)"


def rows(settings: Settings) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield (variable, value, default, unit, meaning) of each setting; a secret is not shown."""
    for field, info in Settings.model_fields.items():
        value = _text(getattr(settings, field))
        yield variable(field), value, _text(info.default), unit_of(info), info.description or ""

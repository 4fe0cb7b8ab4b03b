"""The servers that the service is compared with: their environments, how each is started, what each is sent."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import servers
from benchmarks.cases import (
    LARGE,
    Case,
    Images,
    binary_v2,
    grpc_v2,
    json_v2,
    multipart,
    our_cases,
    over_http,
    png_of,
)
from benchmarks.servers import MODEL, ROOT, Ports, Server, model_file
from tests.ports import free_ports

FOLDER = ROOT / "benchmarks/peers"
JSON = "application/json"
AT_ONCE = f"{LARGE} images"

TELL = """
import sys
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in sys.argv[1:]), sep=", ")
"""

Start = Callable[[Path], Server]
Cases = Callable[[Images], dict[str, Case]]


@dataclass(frozen=True)
class Contender:
    """One server.

    Attributes:
        name: for the table.
        start: starts it; is given a folder for what it writes.
        cases: what it is sent, by kind.
        packages: whose versions are told.
        environment: name of its requirements and its environment; empty for our own.
    """

    name: str
    start: Start
    cases: Cases
    packages: tuple[str, ...]
    environment: str = ""


def interpreter(environment: str) -> Path:
    """Return the Python of an environment, which is made anew when its requirements have changed.

    PyTriton brings a binary that was built for one Python 3.11 and reads the standard library of another if it must;
    PYTRITON_PYTHON names one that fits, such as Debian's 3.11.2.
    """
    requirements = FOLDER / f"requirements/{environment}.txt"
    base = os.environ.get(f"{environment.upper()}_PYTHON", sys.executable)
    digest = zlib.crc32(requirements.read_bytes() + base.encode())
    place = ROOT / f"build/peers/{environment}-{digest:08x}"
    python = place / "bin/python"
    stamp = place / ".made"
    if not stamp.exists():
        print(f"installing {environment}", flush=True)
        subprocess.run([base, "-m", "venv", "--without-pip", "--clear", place], check=True)
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
        done = subprocess.run([*pip, "install", "-r", requirements], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"its installation failed: {done.stderr.splitlines()[-1]}")
        stamp.touch()
    return python


def version_of(contender: Contender) -> str:
    """Return the versions of a contender's packages."""
    python = interpreter(contender.environment) if contender.environment else Path(sys.executable)
    done = subprocess.run([python, "-c", TELL, *contender.packages], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _script(environment: str, script: str, ready: str) -> Start:
    def start(folder: Path) -> Server:
        ports = Ports(*free_ports(2))
        command = [str(interpreter(environment)), str(FOLDER / script), str(model_file()), *map(str, ports)]
        return Server(command, ports, ready, {}, folder / f"{environment}.log")

    return start


def _start_bentoml(folder: Path) -> Server:
    ports = Ports(*free_ports(1))
    python = interpreter("bentoml")
    environ = {
        "PEER_PORT": str(ports.http),
        "PEER_MODEL": str(model_file()),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONPATH": str(FOLDER),
    }
    command = [str(python), "-m", "bentoml", "serve", "bentoml_service:Digits", "--working-dir", str(FOLDER)]
    return Server(command, ports, "/readyz", environ, folder / "bentoml.log")


def _start_mlserver(folder: Path) -> Server:
    ports = Ports(*free_ports(2))
    place = folder / "mlserver"
    place.mkdir()
    general = {"http_port": ports.http, "grpc_port": ports.grpc, "parallel_workers": 0, "metrics_endpoint": None}
    model = {"name": MODEL, "implementation": "mlserver_model.Digits", "parameters": {"uri": str(model_file())}}
    (place / "settings.json").write_text(json.dumps(general), encoding="utf-8")
    (place / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    python = interpreter("mlserver")
    command = [str(python), "-c", "from mlserver.cli import main; main()", "start", str(place)]
    return Server(command, ports, "/v2/health/ready", {"PYTHONPATH": str(FOLDER)}, folder / "mlserver.log")


def _start_mlflow(folder: Path) -> Server:
    ports = Ports(*free_ports(1))
    place = folder / "mlflow"
    place.mkdir()
    flavor = {"loader_module": "mlflow_model", "data": str(model_file())}
    (place / "MLmodel").write_text(json.dumps({"flavors": {"python_function": flavor}}), encoding="utf-8")
    python = interpreter("mlflow")
    # MLflow looks for uvicorn on the path, and has no option of its own for the access log.
    search = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environ = {"PYTHONPATH": str(FOLDER), "PATH": search, "UVICORN_ACCESS_LOG": "false"}
    command = [str(python), "-m", "mlflow", "models", "serve", "--env-manager=local", "--workers=1"]
    command += [f"--model-uri={place}", f"--port={ports.http}"]
    return Server(command, ports, "/ping", environ, folder / "mlflow.log")


def _start_ray(folder: Path) -> Server:
    http, status, fallback, fallback_grpc = free_ports(4)
    place = folder / "ray"
    # A Ray of its own: it neither joins another one on this machine nor shares its files and ports.
    environ = {
        "RAY_ADDRESS": "local",
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(place),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(status),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(place / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(place / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(place / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(place),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(place / "server-state"),
    }
    command = [str(interpreter("ray")), str(FOLDER / "ray_server.py"), str(model_file()), str(http), "0"]
    return Server(command, Ports(http), "/ready", environ, folder / "ray.log")


def _start_torchserve(folder: Path) -> Server:
    http, management, metrics, grpc, grpc_management = free_ports(5)
    place = folder / "torchserve"
    model = place / MODEL
    (model / "MAR-INF").mkdir(parents=True)
    for source in (model_file(), FOLDER / "model.py", FOLDER / "torchserve_handler.py"):
        shutil.copy(source, model)
    described = {"modelName": MODEL, "modelVersion": "1", "handler": "torchserve_handler.py"}
    manifest = {"runtime": "python", "model": described | {"serializedFile": model_file().name}}
    (model / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest), encoding="utf-8")
    workers = {"marName": MODEL, "defaultVersion": True, "minWorkers": 1, "maxWorkers": 1}
    batches = {"batchSize": 32, "maxBatchDelay": 1}
    properties = {
        "inference_address": f"http://127.0.0.1:{http}",
        "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}",
        "grpc_inference_port": grpc,
        "grpc_management_port": grpc_management,
        "disable_system_metrics": "true",
        "load_models": MODEL,
        "models": json.dumps({MODEL: {"1": workers | batches}}),
    }
    config = place / "config.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    command = [str(interpreter("torchserve")), "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
    command += ["--disable-token-auth", "--ts-config", str(config), "--model-store", str(place)]
    command += ["--log-config", str(FOLDER / "torchserve_log.xml")]
    # A folder for temporary files of its own: by a file in it, a second TorchServe knows that there is a first.
    environ = {"TMPDIR": str(place), "TEMP": str(place)}
    return Server(command, Ports(http), f"/predictions/{MODEL}", environ, folder / "torchserve.log")


def _json(path: str, **fields: object) -> Case:
    return over_http(path, json.dumps(fields).encode(), content_type=JSON)


def _raw(path: str, images: Images) -> Case:
    return over_http(path, images.tobytes(), len(images), content_type="application/octet-stream")


def _png(path: str, image: Images) -> Case:
    return over_http(path, png_of(image), content_type="image/png")


def _handwritten(images: Images) -> dict[str, Case]:
    one = images[:1]
    return {
        "JSON": _json("/json", images=one.tolist()),
        "binary": _raw("/binary", one),
        "PNG": multipart("/png", "file", png_of(one[0]), "image/png"),
        AT_ONCE: _raw("/binary", images[:LARGE]),
    }


def _bentoml(images: Images) -> dict[str, Case]:
    png = multipart("/picture", "image", png_of(images[0]), "image/png")
    return {"JSON": _json("/predict", images=images[:1].tolist()), "PNG": png}


def _triton(images: Images) -> dict[str, Case]:
    one, many = images[:1], images[:LARGE]
    return {"JSON": json_v2(one), "binary": binary_v2(one), "gRPC": grpc_v2(one), AT_ONCE: binary_v2(many)}


def _mlserver(images: Images) -> dict[str, Case]:
    one, many = images[:1], images[:LARGE]
    return {"JSON": json_v2(one), "gRPC": grpc_v2(one), AT_ONCE: json_v2(many)}


def _mlflow(images: Images) -> dict[str, Case]:
    picture = b64encode(png_of(images[0])).decode()
    return {
        "JSON": _json("/invocations", inputs=images[:1].tolist()),
        "PNG": _json("/invocations", inputs=[picture]),
    }


def _torchserve(images: Images) -> dict[str, Case]:
    path, one = f"/predictions/{MODEL}", images[:1]
    return {
        "JSON": _json(path, images=one.tolist()),
        "binary": _raw(path, one),
        "PNG": _png(path, one[0]),
        AT_ONCE: _raw(path, images[:LARGE]),
    }


def _ray(images: Images) -> dict[str, Case]:
    return _handwritten(images) | {"PNG": _png("/png", images[0])}


OURS, FLOOR, HANDWRITTEN, TRITON = "mnist-reader", "bare Starlette (the floor)", "FastAPI, by hand", "PyTriton"

CONTENDERS = [
    Contender(OURS, servers.start_ours, our_cases, ("bentoml", "uvicorn", "grpcio")),
    Contender(FLOOR, servers.start_floor, our_cases, ("starlette", "uvicorn", "uvloop", "grpcio")),
    Contender(
        HANDWRITTEN, _script("fastapi", "fastapi_server.py", "/ready"), _handwritten, ("fastapi", "uvicorn"), "fastapi"
    ),
    Contender(
        TRITON,
        _script("pytriton", "pytriton_server.py", f"/v2/models/{MODEL}/ready"),
        _triton,
        ("nvidia-pytriton",),
        "pytriton",
    ),
    Contender("MLServer", _start_mlserver, _mlserver, ("mlserver",), "mlserver"),
    Contender(
        "LitServe",
        _script("litserve", "litserve_server.py", "/health"),
        lambda images: {"JSON": _json("/predict", image=images[0].tolist())},
        ("litserve",),
        "litserve",
    ),
    Contender("TorchServe", _start_torchserve, _torchserve, ("torchserve", "torch", "onnxruntime"), "torchserve"),
    Contender("BentoML as documented", _start_bentoml, _bentoml, ("bentoml",), "bentoml"),
    Contender("MLflow models serve", _start_mlflow, _mlflow, ("mlflow", "uvicorn"), "mlflow"),
    Contender("Ray Serve", _start_ray, _ray, ("ray",), "ray"),
]

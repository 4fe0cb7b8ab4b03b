# The service and its models: two stages, pinned wheels, no compiler, no torch; runs under any uid, root read-only.
#   docker build -t mnist-reader .                        CPU
#   docker build -t mnist-reader:gpu --build-arg RUNTIME=gpu .
#   docker build -t mnist-reader:score --build-arg SCORING=yes .   with pyarrow, for `score`
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ARG RUNTIME=cpu
ARG SCORING=no
# For `strip`, which stays in this stage: any version does.
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/ /requirements/
# The locks hold the SHA-256 of every wheel.
RUN set -eu; \
    python3 -m venv /opt/venv; \
    ln -s /opt/venv/lib/python3*/site-packages /site-packages; \
    set -- -r "/requirements/serving-${RUNTIME}.txt"; \
    if [ "$SCORING" = yes ]; then set -- "$@" -r /requirements/offline.txt; fi; \
    /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes "$@"; \
    /opt/venv/bin/pip uninstall --quiet --yes -r /requirements/left-out.in
# What never runs here goes: packages that nobody imports (above), installers, the tests of others, sources and symbols of
# extensions (37 MB of the latter in three packages), and onnxruntime's library for C, 35 MB, which its Python extension
# contains once more. Bytecode stays, since a read-only root cannot make it at the start.
WORKDIR /site-packages
RUN set -eu; \
    find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +; \
    find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.c' \) -delete; \
    strip --strip-unneeded ml_dtypes/*.so uvloop/*.so aiohttp/*.so aiohttp/_websocket/*.so; \
    rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools numpy/f2py cv2/data; \
    rm -f onnxruntime/capi/libonnxruntime.so*; \
    rm -rf pip pip-*.dist-info setuptools setuptools-*.dist-info pkg_resources _distutils_hack; \
    rm -f distutils-precedence.pth /opt/venv/bin/pip* /opt/venv/bin/activate* /opt/venv/bin/Activate*
# Readable whatever the rights in the tree that it is built from: the user it runs as owns none of it.
WORKDIR /app
COPY serving/ serving/
COPY models/ models/
RUN chmod -R a+rX . && python3 -m compileall -q serving

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mnist-reader" \
      org.opencontainers.image.description="Reads handwritten digits over HTTP and gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Every dependency's telemetry off; nothing is written but to /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BENTOML_DO_NOT_TRACK=True \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp \
    BENTOML_HOME=/tmp/bentoml
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY --from=build /app /app
USER 10001:0
EXPOSE 3000 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python3", "-m", "serving", "health"]
ENTRYPOINT ["python3", "-m", "serving"]
CMD ["serve"]

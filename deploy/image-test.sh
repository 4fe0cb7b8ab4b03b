#!/usr/bin/env bash
# Builds the image and tests it for real: with docker where an engine answers, else with podman and runc, without a daemon.
# Leaves its bill of materials (CycloneDX) in build/sbom-FLAVOUR.cdx.json: cpu, gpu, cpu-score or gpu-score.
#   RUNTIME=cpu|gpu    which dependencies (cpu)
#   SCORING=no|yes     with pyarrow, for files (no)
#   BASE_IMAGE=...     the base; docker's default is the Dockerfile's, podman's a Debian bookworm made here by mmdebstrap
#   PYTHON=...         the interpreter with the tests' dependencies (.venv/bin/python)
#   TEST_AFTER=PID     build beside this process, and test when it has ended
set -euo pipefail
cd "$(dirname "$0")/.."
RUNTIME=${RUNTIME:-cpu}
SCORING=${SCORING:-no}
PYTHON=${PYTHON:-.venv/bin/python}
FLAVOUR=$RUNTIME
[ "$SCORING" = no ] || FLAVOUR=$RUNTIME-score
IMAGE=localhost/mnist-reader:test-$FLAVOUR
REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
say() { echo "[$SECONDS s] $*"; }

build() { # ENGINE ARGUMENTS...
  "$1" build "${@:2}" --build-arg RUNTIME="$RUNTIME" --build-arg SCORING="$SCORING" \
    --build-arg REVISION="$REVISION" -t "$IMAGE" .
}

install_podman() {
  if command -v podman >/dev/null && command -v runc >/dev/null && command -v mmdebstrap >/dev/null; then return; fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "neither a docker engine nor podman, runc and mmdebstrap; install one of them" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    podman buildah runc conmon catatonit mmdebstrap >/dev/null
}

# Storage and settings of our own, so that nothing on the machine is changed. crun fails on hybrid control groups, hence
# runc; there is no systemd to ask for a control group, hence cgroupfs.
configure_podman() {
  local limit
  limit=$(ulimit -Hn)
  [ "$limit" != unlimited ] || limit=65536
  export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
  printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=4096:4096"]\n[engine]\nruntime = "runc"\n%s\n%s\n' \
    "$limit" "$limit" 'cgroup_manager = "cgroupfs"' 'events_logger = "file"' >"$CONTAINERS_CONF"
  printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' \
    "${STORAGE_DRIVER:-overlay}" "$WORK/store" "$WORK/run" >"$CONTAINERS_STORAGE_CONF"
}

make_base() {
  local sources=/etc/apt/sources.list.d/debian.sources
  [ -f "$sources" ] || sources=/etc/apt/sources.list
  mmdebstrap --quiet --variant=minbase --skip=output/dev --include=ca-certificates,python3,python3-venv \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED "$1"/etc/resolv.conf "$1"/etc/hostname' \
    --customize-hook='ln -s ../../bin/python3 "$1/usr/local/bin/python3"' \
    bookworm - "$sources" |
    podman import -q --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      --change 'ENV LANG=C.UTF-8' - "$1" >/dev/null
}

# The build's pip gets this machine's index and certificates by read-only mounts that never enter a layer.
pip_mounts() {
  local authorities=/etc/ssl/certs/ca-certificates.crt index
  index=$(python3 -m pip config get global.index-url 2>/dev/null || true)
  {
    echo '[global]'
    [ ! -f $authorities ] || echo "cert = $authorities"
    [ -z "$index" ] || echo "index-url = $index"
  } >"$WORK/pip.conf"
  MOUNTS=(-v "$WORK/pip.conf:/etc/pip.conf:ro")
  [ ! -f $authorities ] || MOUNTS+=(-v "$authorities:$authorities:ro")
}

cleanup() {
  [ $ENGINE = docker ] || podman rmi -fa >/dev/null 2>&1 || true
  umount "$WORK/store/overlay" 2>/dev/null || true
  rm -rf "$WORK"
}

ENGINE=podman
if docker info >/dev/null 2>&1; then ENGINE=docker; fi
WORK=$(mktemp -d /var/tmp/mnist-reader-image.XXXXXX)
trap cleanup EXIT
if [ $ENGINE = docker ]; then
  BASE_IMAGE=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)}
  # The builder may keep it elsewhere; its size is asked for later.
  docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 || docker pull -q "$BASE_IMAGE"
  build docker --build-arg BASE_IMAGE="$BASE_IMAGE"
else
  install_podman
  configure_podman
  say "podman ready"
  if [ -z "${BASE_IMAGE:-}" ]; then
    BASE_IMAGE=localhost/python:3.11
    make_base "$BASE_IMAGE"
    say "base made"
  fi
  pip_mounts
  build podman --pull=never --network host --format docker "${MOUNTS[@]}" --build-arg BASE_IMAGE="$BASE_IMAGE" \
    >"$WORK/build.log" 2>&1 || { tail -40 "$WORK/build.log" >&2; exit 1; }
fi
say "built"

# Debian's packages and Python's, as they lie in the image.
BILL=$PWD/build/sbom-$FLAVOUR.cdx.json
mkdir -p build
"$ENGINE" save -o "$WORK/image.tar" "$IMAGE" >/dev/null
SYFT_CHECK_FOR_APP_UPDATE=false "$(dirname "$PYTHON")/syft" scan -q "docker-archive:$WORK/image.tar" \
  --source-name mnist-reader -o "cyclonedx-json=$BILL"
rm "$WORK/image.tar"
say "bill of materials made"
[ -z "${TEST_AFTER:-}" ] || tail --pid="$TEST_AFTER" -f /dev/null
export ENGINE IMAGE BASE_IMAGE REVISION RUNTIME SCORING BILL
"$PYTHON" -m pytest tests/image -v -s

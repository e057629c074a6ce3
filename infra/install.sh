#!/usr/bin/env bash
# Creates $VENV and installs the locked tree into it. Takes the CPU build of torch on a machine without a GPU, where one is to be had, or
# the build that $TORCH_BACKEND names (cpu, cu130, ..): an image is built where no GPU is seen, and may run where one is.
set -euo pipefail
PYTHON=${PYTHON:-python3.11} VENV=${VENV:-.venv}

for tool in "$PYTHON" git c++; do
  command -v "$tool" >/dev/null || { echo "install: '$tool' is not on PATH; install it (or set PYTHON=python3.12) and run make again" >&2; exit 1; }
done
"$PYTHON" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"install: Python {v[0]}.{v[1]} found, 3.11 or 3.12 is needed; set PYTHON=python3.11")'

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$(sed -n 's/^uv==\([^ ;]*\).*/\1/p' requirements.lock)"

install() { "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" "$@"; }
torch=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' requirements.lock)
if ! "$VENV/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '$torch')" 2>/dev/null; then
  if [ -n "${TORCH_BACKEND:-}" ]; then
    echo "install: torch $torch, the build for $TORCH_BACKEND"
    install --torch-backend="$TORCH_BACKEND" "torch==$torch"
  # pip, unlike uv, reads pip's configuration, where a machine may name a folder that holds the CPU build.
  elif ! command -v nvidia-smi >/dev/null && "$VENV/bin/python" -m pip install --quiet --no-deps "torch==$torch+cpu" 2>/dev/null; then
    echo "install: torch $torch, the CPU build that pip found"
  elif UV_HTTP_TIMEOUT=20 UV_HTTP_RETRIES=0 install --torch-backend=auto "torch==$torch" 2>/dev/null; then
    echo "install: torch $torch, the build that fits this machine"
  else
    echo "install: torch $torch, the package index's build (the CPU index does not answer)"
    install "torch==$torch"
  fi
fi
echo "install: the locked packages ($(grep -c '==' requirements.lock))"
install -r requirements.lock
install --no-deps --editable .

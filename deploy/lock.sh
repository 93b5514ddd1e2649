#!/bin/sh
# Resolve pyproject.toml into requirements.lock: one version of each package for every supported Python and machine.
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv/bin/uv)
[ -x "$uv" ] || { echo "uv is not installed: .venv/bin/python -m pip install uv" >&2; exit 1; }
new=$(mktemp)
trap 'rm -f "$new"' EXIT
sed -n '/^#/p' requirements.lock >"$new"
"$uv" pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --upgrade --extra bench \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header pyproject.toml >>"$new"
cat "$new" >requirements.lock

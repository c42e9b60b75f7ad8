#!/usr/bin/env bash
# The core tests with the lowest versions of all packages that setup.py allows, in a fresh
# environment (0.7 GB to download). PYTHON chooses the interpreter, by default Python 3.8.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.8}
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

grep -oE '"[A-Za-z0-9_-]+>=[0-9.]+' setup.py | sed -e 's/"//' -e 's/>=/==/' > "$fresh/lowest.txt"
began=$SECONDS
"$python" -m venv "$fresh/venv"
"$fresh/venv/bin/pip" install --quiet --upgrade pip
"$fresh/venv/bin/pip" install --quiet -e '.[cpu,test]' -c "$fresh/lowest.txt"
echo "$("$python" --version) and $(paste -sd ' ' "$fresh/lowest.txt"):"
echo "installed in $((SECONDS - began)) s, $(du -sh "$fresh/venv" | cut -f1)"

began=$SECONDS
"$fresh/venv/bin/python" -m pytest tests/test_{cli,codes,descent,doctor,environment,experiments,fetch}.py \
	tests/test_{formats,gpu,invert,layers,losses,networks,passes,pictures,settings,setup,sheets}.py \
	tests/test_{steps,vgg,weights}.py
echo "tested in $((SECONDS - began)) s"

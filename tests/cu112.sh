#!/usr/bin/env bash
# The core tests on the CPU through the wheel for GPUs, where there is no GPU: it is installed from
# the package index into a fresh environment (2 GB to download, 5 GB of disk), and a stub stands in
# for the driver's libcuda.so.1. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

began=$SECONDS
"${PYTHON:-python3}" -m venv "$fresh/venv"
"$fresh/venv/bin/pip" install --quiet --upgrade pip
"$fresh/venv/bin/pip" install --quiet -e '.[cu112,test]'
echo "installed in $((SECONDS - began)) s, $(du -sh "$fresh/venv" | cut -f1)"

mkdir "$fresh/stub"
gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$fresh/stub/libcuda.so.1" tests/stub_cuda.c
export LD_LIBRARY_PATH="$fresh/stub"

began=$SECONDS
"$fresh/venv/bin/fmi" doctor
"$fresh/venv/bin/pytest" tests/test_{cu112,codes,descent,gpu,doctor,invert,losses,settings,setup,vgg}.py
echo "tested in $((SECONDS - began)) s"

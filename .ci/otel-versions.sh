#!/bin/sh
# Runs the telemetry's unit tests with the oldest and with the newest OpenTelemetry and prometheus-client that
# pyproject.toml allows; `make test-otel-versions` calls it with the Python of an environment that has everything else.
# Where that environment has the same versions, which `make lock` brings about for the newest, the tests are not repeated.
#
# Those packages are installed into .cache/otel, where Python looks before it looks in that environment, and anew after
# pyproject.toml or this file has changed.  gRPC's and protobuf's come with them: an older OpenTelemetry needs an older protobuf, and
# that one older messages.
set -eu

python=$1
tag=$("$python" -c 'import sys; print(sys.implementation.cache_tag)')  # wheels are compiled for one Python

requirements() {
    "$python" - "$1" <<'PYTHON'
import re, sys, tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
scheduler = project["optional-dependencies"]["scheduler"]
for each in scheduler:
    if found := re.match(r"(opentelemetry-[a-z-]+|prometheus-client)>=([0-9.]+)", each):
        print(f"{found[1]}=={found[2]}.*" if sys.argv[1] == "oldest" else each)
for each in project["dependencies"] + scheduler:
    if re.match("grpcio|protobuf|googleapis", each):
        print(each)
PYTHON
}

versions() {
    "$python" -c '
from importlib.metadata import version
names = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc", "protobuf", "prometheus-client")
print(", ".join(f"{name} {version(name)}" for name in names))'
}

for end in oldest newest; do
    packages=.cache/otel/$tag/$end
    stamp=$packages/.stamp
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ "$0" -nt "$stamp" ]; then
        rm -rf "$packages"
        mkdir -p "$packages"
        requirements "$end" >"$packages/requirements.txt"
        "$python" -m pip install --disable-pip-version-check --quiet --no-warn-conflicts --target "$packages" \
            --requirement "$packages/requirements.txt"
        touch "$stamp"
    fi
    found=$(PYTHONPATH=$packages versions)
    if [ "$found" = "$(versions)" ]; then
        echo "$end: $found, as in the environment: tests/unit runs on them"
    else
        echo "$end: $found"
        PYTHONPATH=$packages "$python" -m pytest --quiet -p no:cacheprovider tests/unit/telemetry
    fi
done

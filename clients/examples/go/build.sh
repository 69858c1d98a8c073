#!/bin/sh
# Generates Go code from the .proto files and builds ./generate.
#
#   sh build.sh            with Go's modules, from the network (first: go mod tidy)
#   sh build.sh debian     with Debian's modules: golang-go golang-google-grpc-dev protoc-gen-go-1-5 protoc-gen-go-grpc
#                          golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev
#
# PROTOC names the protobuf compiler, default protoc; OUT the folder that is written, default this one.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
protos=$here/../../../protos
out=${OUT:-$here}
module=sagecontrolplane

[ "$out" = "$here" ] || cp "$here"/*.go "$here/go.mod" "$out"
# shellcheck disable=SC2046  # PROTOC may be a command with arguments
${PROTOC:-protoc} -I "$protos" -I "$protos/third_party" \
    --go_out="$out" --go_opt=module=$module --go-grpc_out="$out" --go-grpc_opt=module=$module \
    sage/controlplane/v1/batch.proto sage/controlplane/v1/common.proto sage/controlplane/v1/decision.proto \
    sage/controlplane/v1/inference.proto

cd "$out"
case ${1:-} in
debian)
    export GO111MODULE=off GOPATH="$out/.gopath:/usr/share/gocode"
    mkdir -p .gopath/src
    ln -sfn "$out" ".gopath/src/$module"
    cd ".gopath/src/$module"
    ;;
esac
exec go build -o "$out/generate" .

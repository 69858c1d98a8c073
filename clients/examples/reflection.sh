#!/bin/sh
# Calls the scheduler without generated stubs: the scheduler describes its services by reflection.
# Uses grpcurl if it is installed, else `buf curl` (pip install buf-bin).
#
#   sh clients/examples/reflection.sh [HOST:PORT]

set -eu
ADDRESS=${1:-127.0.0.1:50051}
PACKAGE=sage.controlplane.v1

call() { # SERVICE METHOD JSON
    if command -v grpcurl >/dev/null; then
        grpcurl -plaintext -d "$3" "$ADDRESS" "$PACKAGE.$1/$2"
    else
        buf curl --protocol grpc --http2-prior-knowledge --data "$3" "http://$ADDRESS/$PACKAGE.$1/$2"
    fi
}

call AdminService ListInstances '{}'
call AdminService GetPolicy '{}'
call InferenceService Generate '{
  "requestId": "from-the-shell-'"$$"'",
  "spec": {
    "text": "Once upon a time",
    "sampling": {"maxTokens": 8, "temperature": 0},
    "priority": "PRIORITY_HIGH"
  }
}'
call AdminService Explain '{"requestId": "from-the-shell-'"$$"'"}'

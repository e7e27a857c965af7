#!/bin/sh
# Starts an S3-compatible server (SeaweedFS) with one account. Its file of accounts is written at every start from the
# environment, readable by this user alone. Further arguments go to `weed server`.
set -eu
umask 077

: "${AWS_ACCESS_KEY_ID:?set it to the name of the account}"
: "${AWS_SECRET_ACCESS_KEY:?set it to the secret of the account}"

accounts="$(mktemp)"
cat > "$accounts" <<JSON
{"identities": [{"name": "mlflow", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "$AWS_ACCESS_KEY_ID", "secretKey": "$AWS_SECRET_ACCESS_KEY"}]}]}
JSON
# Files above 256 MB, such as big checkpoints, are stored in pieces of 4 MB whatever the size of a volume.
exec weed server -s3 -s3.config="$accounts" -s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false "$@"

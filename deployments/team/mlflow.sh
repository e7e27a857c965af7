#!/bin/sh
# Starts MLflow with accounts. The file of settings that MLflow wants is written at every start from the environment,
# readable by this user alone: it holds the address of the database. The first start creates the account of the
# administrator with MLFLOW_AUTH_ADMIN_PASSWORD; later that variable changes nothing.
set -eu
umask 077

: "${MLFLOW_BACKEND_STORE_URI:?set it to the address of the database: postgresql+psycopg://mlflow:...@host/mlflow}"
: "${MLFLOW_ARTIFACTS_DESTINATION:?set it to the bucket: s3://...}"
: "${MLFLOW_AUTH_ADMIN_USERNAME:?set it to the name of the administrator}"
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?set it to the password of the administrator, 12 letters at least}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?set it to a long random text}"

settings="$(mktemp)"
# A percent sign begins a reference in this format; in an address it begins an escaped letter.
cat > "$settings" <<INI
[mlflow]
default_permission = ${MLFLOW_AUTH_DEFAULT_PERMISSION:-READ}
database_uri = $(printf %s "$MLFLOW_BACKEND_STORE_URI" | sed 's/%/%%/g')
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 30
INI
export MLFLOW_AUTH_CONFIG_PATH="$settings"
export MLFLOW_DISABLE_TELEMETRY=true
# What it would run (judging answers of language models) is not for this project, and costs four processes.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

# The addresses stay in the environment: every user of a machine can read a command line.
export MLFLOW_HOST="${MLFLOW_HOST:-127.0.0.1}" MLFLOW_PORT="${MLFLOW_PORT:-5000}" MLFLOW_WORKERS="${MLFLOW_WORKERS:-2}"
exec mlflow server --app-name basic-auth --serve-artifacts

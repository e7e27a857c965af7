"""Set up a team's servers: the bucket, the account of the workers, work pool, deployments, automations.

Everything that is there already is left as it is or brought up to date, so this can be run after every upgrade:

    python deployments/team/set_up.py
"""

import os
import sys

import boto3
import httpx
from botocore.exceptions import ClientError

from unfreeze.tasks.service.deployments import register_deployments


def create_bucket(destination: str) -> None:
    """Create the bucket of MLflow's artifacts; a folder needs no preparation."""
    if not destination.startswith("s3://"):
        return
    bucket = destination.removeprefix("s3://").split("/")[0]
    store = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
    try:
        store.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        store.create_bucket(Bucket=bucket)


def create_account(mlflow: str, administrator: tuple[str, str], name: str, password: str) -> None:
    """Create the account with which the workers use MLflow; one that is there gets this password."""
    account = {"username": name, "password": password}
    with httpx.Client(base_url=f"{mlflow}/api/2.0/mlflow/users", auth=administrator, timeout=30) as users:
        if users.get("/get", params={"username": name}).status_code == 404:
            users.post("/create", json=account).raise_for_status()
        else:
            users.patch("/update-password", json=account).raise_for_status()


def main() -> None:
    """Do all of it, with the addresses and secrets of the environment."""
    setting = os.environ
    create_bucket(setting["MLFLOW_ARTIFACTS_DESTINATION"])
    administrator = setting["MLFLOW_AUTH_ADMIN_USERNAME"], setting["MLFLOW_AUTH_ADMIN_PASSWORD"]
    worker = setting["MLFLOW_TRACKING_USERNAME"], setting["MLFLOW_TRACKING_PASSWORD"]
    create_account(setting["MLFLOW_TRACKING_URI"], administrator, *worker)
    pool = setting.get("UNFREEZE_POOL", "local")
    count = register_deployments(pool, setting)
    print(f"{count} deployments in work pool {pool}", file=sys.stderr)


if __name__ == "__main__":
    main()

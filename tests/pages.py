"""What is on Prefect's pages."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact


def shown_artifacts(key: str | None = None, flow_run: str | None = None) -> list[Artifact]:
    """Artifacts by key and flow run, the newest first: the server filters, because it answers with the first 200."""
    wanted = ArtifactFilter(
        key=ArtifactFilterKey(any_=[key]) if key else None,
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]) if flow_run else None,
    )
    with get_client(sync_client=True) as client:
        found: list[Artifact] = client.read_artifacts(artifact_filter=wanted)
    return sorted(found, key=lambda artifact: artifact.created, reverse=True)

"""MLflow: runs, their metrics and artifacts, models and their registry. Nothing outside this room imports it."""

from unfreeze.tasks.tracking.runs import (
    BUFFERED_METRICS as BUFFERED_METRICS,
)
from unfreeze.tasks.tracking.runs import (
    CHECKPOINTS as CHECKPOINTS,
)
from unfreeze.tasks.tracking.runs import (
    CLASSES_OUT as CLASSES_OUT,
)
from unfreeze.tasks.tracking.runs import (
    FINGERPRINT as FINGERPRINT,
)
from unfreeze.tasks.tracking.runs import (
    FLOW_RUN as FLOW_RUN,
)
from unfreeze.tasks.tracking.runs import (
    IMAGES_IN as IMAGES_IN,
)
from unfreeze.tasks.tracking.runs import (
    PARENT as PARENT,
)
from unfreeze.tasks.tracking.runs import (
    SILENT_SECONDS as SILENT_SECONDS,
)
from unfreeze.tasks.tracking.runs import (
    TRAINED_UNTIL as TRAINED_UNTIL,
)
from unfreeze.tasks.tracking.runs import (
    MetricLog as MetricLog,
)
from unfreeze.tasks.tracking.runs import (
    RunStatus as RunStatus,
)
from unfreeze.tasks.tracking.runs import (
    artifacts as artifacts,
)
from unfreeze.tasks.tracking.runs import (
    as_float as as_float,
)
from unfreeze.tasks.tracking.runs import (
    client as client,
)
from unfreeze.tasks.tracking.runs import (
    close_run as close_run,
)
from unfreeze.tasks.tracking.runs import (
    close_stale_runs as close_stale_runs,
)
from unfreeze.tasks.tracking.runs import (
    closing_run as closing_run,
)
from unfreeze.tasks.tracking.runs import (
    code_of_models as code_of_models,
)
from unfreeze.tasks.tracking.runs import (
    columns_in as columns_in,
)
from unfreeze.tasks.tracking.runs import (
    create_run as create_run,
)
from unfreeze.tasks.tracking.runs import (
    experiment_id as experiment_id,
)
from unfreeze.tasks.tracking.runs import (
    experiments as experiments,
)
from unfreeze.tasks.tracking.runs import (
    fetch as fetch,
)
from unfreeze.tasks.tracking.runs import (
    flatten as flatten,
)
from unfreeze.tasks.tracking.runs import (
    get_run as get_run,
)
from unfreeze.tasks.tracking.runs import (
    held_run as held_run,
)
from unfreeze.tasks.tracking.runs import (
    kind_of_run as kind_of_run,
)
from unfreeze.tasks.tracking.runs import (
    latest_checkpoint as latest_checkpoint,
)
from unfreeze.tasks.tracking.runs import (
    log_data_set as log_data_set,
)
from unfreeze.tasks.tracking.runs import (
    log_file as log_file,
)
from unfreeze.tasks.tracking.runs import (
    log_frame as log_frame,
)
from unfreeze.tasks.tracking.runs import (
    log_model as log_model,
)
from unfreeze.tasks.tracking.runs import (
    log_png as log_png,
)
from unfreeze.tasks.tracking.runs import (
    log_spec as log_spec,
)
from unfreeze.tasks.tracking.runs import (
    log_tags as log_tags,
)
from unfreeze.tasks.tracking.runs import (
    log_text as log_text,
)
from unfreeze.tasks.tracking.runs import (
    page as page,
)
from unfreeze.tasks.tracking.runs import (
    register_model as register_model,
)
from unfreeze.tasks.tracking.runs import (
    reopen_run as reopen_run,
)
from unfreeze.tasks.tracking.runs import (
    run_with_tag as run_with_tag,
)
from unfreeze.tasks.tracking.runs import (
    save_checkpoint as save_checkpoint,
)
from unfreeze.tasks.tracking.runs import (
    spec_of as spec_of,
)
from unfreeze.tasks.tracking.runs import (
    start_run as start_run,
)
from unfreeze.tasks.tracking.runs import (
    system_metrics as system_metrics,
)
from unfreeze.tasks.tracking.runs import (
    tags_of as tags_of,
)
from unfreeze.tasks.tracking.runs import (
    values_out as values_out,
)

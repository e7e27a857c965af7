"""MLflow: runs, their metrics and artifacts, and registered models. Nothing outside this room imports MLflow.

Other rooms use ``tracking.NAME`` for runs and artifacts, `registry` for models, and `training_run` in flows that train.

=========================  =============================================================================================
``server.py``              the client, experiments, a run by its id, addresses of pages, columns of the table of runs
``operations.py``          everything that is done to a run in MLflow, each so that it may be repeated
``spool.py``               a run's operations that MLflow does not have yet: a durable log in the data folder
``delivery.py``            the thread that sends them
``under_way.py``           the runs that this process has under way; `keep`, by which everything below writes
``children.py``            runs that are part of one under way: a key until MLflow gives them an id
``syncing.py``             what processes left behind: spools, and runs that look as if they were under way
``runs.py``                a run's life: start, hold, reopen, close; its tags, params and input data
``metrics.py``             by step, computed once, of the machine
``files.py``               a run's artifacts: spec, texts, tables, images, checkpoints
``logged_models.py``       a trained model as MLflow keeps models: written here, logged with its run
``registry.py``            registered models: a new version, find one, download it, make it champion
``decisions.py``           what a retraining decided: the alias, and everything that says why
``origin.py``              the code and the machine that a run was made with
``history.py``             what a run has logged so far, read back
``checkpoints.py``         which checkpoint a training continues from
``stored_checkpoints.py``  which checkpoints runs have; those of finished runs are removed
``training_run.py``        `Run`, one training for its flow: opened or resumed, what is done already, its summary
``listing.py``             the latest runs, and how to continue each
=========================  =============================================================================================

What must hold: **between the start of a training and its end nothing waits for MLflow**. What is written goes through
`keep`, what is read is known since the start (`delivery_of`). A new kind of write is an operation that may be repeated.

What is where in MLflow:

- An **experiment** is `tracking.experiment` of the spec. A **run** is a training, a finder's run or a sweep; each trial
  of a sweep is a child run (``mlflow.parentRunId``). Params are the spec by dotted name; the input is the data set.
- **Metrics**: ``train/loss`` and ``lr/GROUP`` per batch, ``valid/*`` per epoch, ``baseline/*`` for the head alone,
  ``best_*`` for a sweep, ``mean/*`` for a trial, ``system/*`` for the machine.
- **Tags of a run**:

  - ``unfreeze.kind`` (``train-images``, ``train-tables``, ``find-lr``, ``sweep``, ``trial``, ...), ``unfreeze.version``
  - ``unfreeze.host`` and ``unfreeze.process``: who trains it; ``unfreeze.alive``: when that was last heard of. A run
    whose process is gone is set to KILLED by `unfreeze up` or the next command.
  - ``unfreeze.checkpoint``: the artifact to resume from; ``unfreeze.lr.N``: the finder's suggestions for stage N;
    ``unfreeze.stage.N``: the result of stage N, once it is over
  - ``unfreeze.resume``: the command that continues it, where it is not `unfreeze resume`
  - ``unfreeze.study`` of a sweep; ``unfreeze.trial`` and ``unfreeze.rule``: a trial's number and rule of thumb;
    ``unfreeze.key``: by which the study knows the trial's run
  - ``unfreeze.decision`` (and ``.reasons``, ``.numbers``): of a retraining
  - ``data.fingerprint`` and ``data.trained_until``: which data it was trained on
  - ``unfreeze.xxh3/NAME``: hash of an artifact that is read again to decide something
  - ``prefect.*``: the flow run that trains it, by which a retry finds the run again

- **Artifacts of a run**: ``report.html`` and its parts in ``report/``; ``code/`` (what it was made with);
  ``spec.json``; ``checkpoints/``; ``data/`` (index or encoder, rejected rows); ``learning_rate/`` (finder); ``valid/``
  and ``baseline/`` (predictions, plots); ``comparison/`` and ``drift/`` (retraining); ``sweep/`` (plots, trials).
  Tables are feather files.
- **Registered models**: a version's description and tags hold decisions. Aliases: ``champion`` (served), ``challenger``
  (the latest that is not), ``previous`` (the champion before). Tag ``unfreeze.retrained``: the latest retraining.
"""

from unfreeze.tasks.tracking.files import (
    artifacts as artifacts,
    fetch as fetch,
    keep_model as keep_model,
    kept_model as kept_model,
    log_file as log_file,
    log_frame as log_frame,
    log_png as log_png,
    log_spec as log_spec,
    log_text as log_text,
    read_frame as read_frame,
    save_checkpoint as save_checkpoint,
    spec_of as spec_of,
)
from unfreeze.tasks.tracking.logged_models import save_mlflow_model as save_mlflow_model, signature_of as signature_of
from unfreeze.tasks.tracking.metrics import (
    MetricLog as MetricLog,
    as_float as as_float,
    log_metrics as log_metrics,
    system_metrics as system_metrics,
)
from unfreeze.tasks.tracking.operations import CHECKPOINTS as CHECKPOINTS
from unfreeze.tasks.tracking.runs import (
    FINGERPRINT as FINGERPRINT,
    TRAINED_UNTIL as TRAINED_UNTIL,
    RunStatus as RunStatus,
    close_run as close_run,
    closing_run as closing_run,
    create_run as create_run,
    flatten as flatten,
    held_run as held_run,
    info_of as info_of,
    kind_of_run as kind_of_run,
    log_data_set as log_data_set,
    log_tags as log_tags,
    part_of_run as part_of_run,
    reopen_run as reopen_run,
    run_with_tag as run_with_tag,
    start_run as start_run,
)
from unfreeze.tasks.tracking.server import (
    client as client,
    experiment_id as experiment_id,
    experiments as experiments,
    get_run as get_run,
    page as page,
)
from unfreeze.tasks.tracking.under_way import (
    delivering as delivering,
    delivering_together as delivering_together,
    keep as keep,
    keep_and_wait as keep_and_wait,
    place_of as place_of,
    staying_open as staying_open,
    tags_of as tags_of,
    wait_until_delivered as wait_until_delivered,
)

"""MLflow: runs, their metrics and artifacts, and registered models. Nothing outside this room imports MLflow.

Other rooms use ``tracking.NAME`` for runs and artifacts, `registry` for models, and `training_run` in flows that train.

========================  ==============================================================================================
``folder.py``             a run as a folder in the data folder: the truth about it
``publish.py``            makes MLflow equal to a folder; repeatable at any time
``publisher.py``          the thread that publishes a run under way; `sync` for all others
``server.py``             the client, experiments, a run by its id, addresses of pages, columns of the table of runs
``runs.py``               a run's life: started, resumed, closed; its parts; the latest runs
``entries.py``            what is known of a run by its id; its tags and data set
``metrics.py``            by step, computed once, of the machine
``files.py``              a run's artifacts: spec, texts, tables, figures, checkpoints, its model
``elsewhere.py``          runs that are in MLflow but not in this data folder
``registry.py``           models: logged, registered, the champion, decisions of retrainings
``training_run.py``       `Run`, one training for its flow: opened or resumed, its finished steps, its summary
========================  ==============================================================================================

Invariant: **a run is its folder, and MLflow shows it**. No training waits for MLflow: logs are committed to the folder
and read from there. Everything `publish` sends may be sent again. A new kind of log entry is a key of a commit and a
few lines of `publish`.

Contents of MLflow:

- An **experiment** is `tracking.experiment` of the spec. A **run** is a training, a finder's run or a sweep; each trial
  of a sweep is a child run (``mlflow.parentRunId``). Params are the spec by dotted name; the input is the data set.
- **Metrics**: ``train/loss`` and ``lr/GROUP`` per batch, ``valid/*`` per epoch, ``baseline/*`` for the head alone,
  ``best_*`` for a sweep, ``mean/*`` for a trial, ``system/*`` for the machine.
- **Tags of a run**:

  - ``unfreeze.kind`` (``train-images``, ``train-tables``, ``find-lr``, ``sweep``, ``trial``, ...), ``unfreeze.version``
  - ``unfreeze.key``: its name in the data folder; ``unfreeze.host`` and ``unfreeze.process``: its process;
    ``unfreeze.alive``: that process's last sign of life
  - ``unfreeze.checkpoint``: the artifact to resume from; ``unfreeze.lr.N``: the finder's suggestions for stage N;
    ``unfreeze.stage.N``: the result of stage N, once finished
  - ``unfreeze.resume``: the command that continues it, if not `unfreeze resume`
  - ``unfreeze.study`` of a sweep; ``unfreeze.trial`` and ``unfreeze.rule``: a trial's number and rule of thumb
  - ``unfreeze.decision`` (and ``.reasons``, ``.numbers``): of a retraining
  - ``data.fingerprint`` and ``data.trained_until``: its training data
  - ``unfreeze.xxh3/NAME``: hash of an artifact on which later decisions depend
  - ``prefect.*``: the flow run that trains it, by which a retry finds the run again

- **Artifacts of a run**: ``report.html`` and its parts in ``report/``; ``code/`` (provenance);
  ``spec.json``; ``checkpoints/``; ``data/`` (index or encoder, rejected rows); ``learning_rate/`` (finder); ``valid/``
  and ``baseline/`` (predictions, plots); ``comparison/`` and ``drift/`` (retraining); ``sweep/`` (plots, trials).
  Tables are feather files.
- **Registered models**: a version's description and tags hold decisions. Aliases: ``champion`` (served), ``challenger``
  (the latest that is not), ``previous`` (the champion before). Tag ``unfreeze.retrained``: the latest retraining.
"""

from unfreeze.tasks.tracking.entries import (
    FINGERPRINT as FINGERPRINT,
    ids_of as ids_of,
    log_data_set as log_data_set,
    log_tags as log_tags,
    metrics_of as metrics_of,
    state_of_run as state_of_run,
    tags_of as tags_of,
)
from unfreeze.tasks.tracking.files import (
    artifacts as artifacts,
    decide as decide,
    fetch as fetch,
    kept_model as kept_model,
    log_file as log_file,
    log_frame as log_frame,
    log_png as log_png,
    log_spec as log_spec,
    log_text as log_text,
    read_frame as read_frame,
    register as register,
    save_checkpoint as save_checkpoint,
    spec_of as spec_of,
)
from unfreeze.tasks.tracking.metrics import (
    MetricLog as MetricLog,
    as_float as as_float,
    log_metrics as log_metrics,
    system_metrics as system_metrics,
)
from unfreeze.tasks.tracking.publisher import sync as sync, wait_until_published as wait_until_published
from unfreeze.tasks.tracking.registry import save_mlflow_model as save_mlflow_model
from unfreeze.tasks.tracking.runs import (
    RunStatus as RunStatus,
    close_run as close_run,
    drop_weights as drop_weights,
    new_run as new_run,
    part_of_run as part_of_run,
    resumed_run as resumed_run,
    run_with_tag as run_with_tag,
    staying_open as staying_open,
)
from unfreeze.tasks.tracking.server import client as client, experiment_id as experiment_id, get_run as get_run

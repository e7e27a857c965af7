"""Sweeps: Optuna chooses settings, trials train them, and their shared stages are trained once.

==============  ======================================================================================================
``study.py``    Optuna: studies in a journal file or a database, samplers, pruners, trials of dead processes
``trial.py``    one trial: a child run of MLflow, trained by `run_recipe` with its shared stages
``sweep.py``    the sweep: its MLflow run, the best so far, worker processes beside this one
``report.py``   the search compared with the rules of thumb, plots, the table of trials
==============  ======================================================================================================

- **Rules of thumb run first and are never pruned**: the search has to beat ratios 10 and 3 and equal lrs.
- **Shared stages** (`recipe.shared_stages`) are those before the first one that the space changes. Their weights are
  stored under a key of all their dependencies, and shared by workers, later sweeps and single trials.
- **Workers can join and leave a study**: those on other machines use a database. A dead one is detected by its process
  id or its missing heartbeat, and its trial is retried. A resumed study keeps its original settings.
- **Trials do not wait for MLflow**: each is a folder in its sweep's (`unfreeze.tasks.tracking`).
- **Addresses hold no password**: each worker has it in the environment variable `UNFREEZE_STORAGE_PASSWORD`.
"""

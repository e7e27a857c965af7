"""Sweeps: Optuna chooses settings, trials train them, and what trials have in common is trained once.

==============  ======================================================================================================
``study.py``    Optuna: the study in a journal file or a database, samplers, pruners, trials of dead processes
``trial.py``    one trial: a child run of MLflow, trained by `run_recipe` with its shared stages
``sweep.py``    the sweep: its MLflow run, the best so far, worker processes beside this one
``report.py``   the search against the rules of thumb, plots, the table of trials
==============  ======================================================================================================

- **Rules of thumb run first and are never pruned**: ratios 10 and 3 and equal lrs are what the search has to beat.
- **Shared stages** (`recipe.shared_stages`) are those before the first one that the space changes. Their weights are
  stored under a key of all that they depend on, so that workers, later sweeps and single trials share them.
- **A study can be joined and left**: workers on other machines use a database. A dead one is noticed by its process id
  or its missing heartbeat, and its trial is tried again. A resumed study keeps the settings it was begun with.
- **Trials do not wait for MLflow**: each is a folder in its sweep's (`unfreeze.tasks.tracking`).
- **Addresses hold no password**: it is in `UNFREEZE_STORAGE_PASSWORD` in the environment of each worker.
"""

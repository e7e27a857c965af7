"""The machine and the flow run on it: data folder, environment, processes, signals, notices, Prefect's page.

``environment.py`` is imported before Prefect and MLflow, because both read their settings when they are imported: it
points them at the data folder (`UNFREEZE_HOME`, or ``.unfreeze`` in the working folder), hides passwords from output,
and finds the service that runs on the folder. ``processes.py`` identifies processes and tells whether they still live;
``locks.py`` has locks that end with their process, by which ``flow_runs.py`` finds flow runs of killed ones.
``servers.py`` checks that servers answer, ``storage.py`` explains storage failures in one line, ``provenance.py``
records a run's code, packages and hardware. ``notices.py`` logs lines for the user, ``page.py`` fills the Prefect page.
``interruption.py`` defers signals to the end of the current batch:

- SIGINT, SIGTERM and SIGHUP end a training after the batch, with a checkpoint; a second SIGINT or SIGTERM at once.
- A cancelled flow run ends as Cancelled. While our handler holds SIGTERM, Prefect's own cannot report the cancellation,
  and would take the run for crashed and restart it.
- Closing the terminal acts as Ctrl-C; under `nohup` it is ignored.

- The data folder and everything in it belong to one user (mode 0700).
- `service.json` is trusted only if it names processes of this machine, user and folder.
- Secrets go to children through the environment, never through command lines.
"""

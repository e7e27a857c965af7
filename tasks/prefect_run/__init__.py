"""What a step tells the person who watches, and how it is stopped.

``notices.py`` has its lines, ``progress.py`` a bar in a terminal, lines elsewhere, an artifact on the Prefect page.
``report.py`` shows tables, figures and the way to MLflow; ``showing.py`` sends what the page shows from a thread, so
that a run goes on without Prefect. ``user_errors.py`` shows invalid input without a traceback.
``processes.py`` notes which process runs a flow, so that others can end what a killed one left.
``interruption.py`` holds signals back until the batch under way is done:

- SIGINT, SIGTERM and SIGHUP end a training after the batch, with a checkpoint; a second SIGINT or SIGTERM at once.
- A flow run that is being cancelled ends as Cancelled: while our handler holds SIGTERM, Prefect's own cannot report the
  cancellation, and the run would be taken for crashed and started again.
- A terminal that closes acts as Ctrl-C; under `nohup` it is ignored.
"""

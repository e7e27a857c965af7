"""Retraining on new data, comparison with the champion, promotion, and the sensor that starts it.

====================  ==============================================================================================
``training.py``       the training of a retraining; whether its data are new
``compare.py``        the paired test and the drift report as steps; comparison of two runs, or a run and its replay
``promotion.py``      approval, the alias, the decision as artifact, tags and description, notifications
``watching.py``       one retraining of a model at a time; models whose sources changed since their latest retraining
====================  ==============================================================================================

Invariants:

- **No model is scored on data that either model was trained on.** Images keep their side of the split
  (`data.split_like`); validation images that the champion was trained on, and rows of a table up to the champion's last
  training date, are excluded.
- **The alias moves atomically** on the server: ``models:/NAME@champion`` is always one version or the other. The former
  champion keeps the alias ``previous``.
- **Concurrent retrainings of a model are skipped**, and their data are left for the next. A crashed retraining is
  queued again and resumes its own training.
- **The sensor only asks**: it emits an event that an automation answers. Once the event is on the server, it remembers
  the files by name, size and time, and does not read unchanged ones again.
"""

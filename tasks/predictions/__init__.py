"""Predictions with a registered model, for any number of rows: part by part, resumed where they stopped.

`unfreeze.flows.predict` finds the model and lists the source (`source.py`), predicts what an earlier run of the same
prediction did not (`parts.py`), and puts the parts together into one file. `explain.py` writes a page about what a
model looks at. Nothing here distinguishes images and tables: `Predictor.chunks` of the modality predicts.

- **Bounded memory**: a chunk at a time, of 1,024 images or 65,536 rows.
- **Nothing is done twice**: parts are stored in a folder beside the output, named by a key of model version, options
  and source; the same command resumes a run that was stopped. The output appears whole or not at all.
- **An unreadable row is a row of the output** with its reason in the column ``error``, and the others are predicted.
- **An existing output is replaced only with `overwrite`**; one process writes an output at a time.
"""

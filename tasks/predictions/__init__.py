"""Predictions with a registered model, in resumable parts, for any number of rows.

`unfreeze.flows.predict` finds the model and lists the source (`source.py`), predicts the parts that an earlier run of
the same prediction did not (`parts.py`), and joins the parts into one file. `explain.py` writes a page that explains a
model. Nothing here distinguishes images and tables: `Predictor.chunks` of the modality predicts.

- **Bounded memory**: one chunk at a time, of 1,024 images or 65,536 rows.
- **Nothing is done twice**: parts are stored in a folder beside the output, named by a key of model version, options
  and source; the same command resumes a stopped run. The output appears whole or not at all.
- **An unreadable row is a row of the output** with the reason in column ``error``; the others are predicted.
- **An existing output is replaced only with `overwrite`**; one process writes an output at a time.
"""

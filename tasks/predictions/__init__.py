"""Predictions with a registered model, for any number of rows: part by part, resumed where they stopped.

`unfreeze.flows.predict` finds the model and lists the source (`source.py`), predicts what an earlier run of the same
prediction did not (`parts.py`), and puts the parts together into one file. The model predicts chunk by chunk by itself
(`Predictor.chunks` of its modality); nothing here knows images from tables.

- **Bounded memory**: a chunk at a time, of 1,024 images or 65,536 rows.
- **Nothing is done twice**: parts are kept in a folder beside the output, named by a key of model version, options and
  source; a run that was stopped is started again with the same command. The output appears whole or not at all.
- **A row that cannot be read is a row of the output** with its reason in the column ``error``, and the others are
  predicted.
- **An output that is there already is replaced only with `overwrite`**; one process writes an output at a time.
"""

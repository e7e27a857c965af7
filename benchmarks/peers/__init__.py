"""Scripts that use a library as its documentation does; `benchmarks.bench_peers` runs each in its own environment.

Each reads ``train/CLASS/`` and ``test/CLASS/`` or ``train.csv`` and ``test.csv`` from the working folder, and writes
``answers.csv``: a column of probabilities per class, or ``target``.
"""

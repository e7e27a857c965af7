#!/usr/bin/env bash
# What a GPU shows: the training code's tests on it, the photos by the eight steps, and precomputed activations.
# Needs torch, torchvision, timm, pandas, pyarrow, scikit-learn, matplotlib and pydantic; neither Prefect nor MLflow.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python -c "import torch; print(torch.__version__, torch.cuda.get_device_name(0))"
python -m pytest -q -n 0 -m gpu tests/models/test_on_gpu.py 2>&1 | tail -25
python -m benchmarks.training_speed
python -m benchmarks.precomputed_epoch
python -m benchmarks.photos lite0
python -m benchmarks.defaults --sets dev --only cats-dogs-400 cats-dogs-750 --seeds 3 --models ours expert

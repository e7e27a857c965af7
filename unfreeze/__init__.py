"""Fine-tune pretrained networks the way the fast.ai course taught it, as a tracked and scheduled pipeline.

``unfreeze.models`` trains and predicts, and knows no orchestration; ``unfreeze.tasks`` are its steps, kept by MLflow;
``unfreeze.flows`` are what a person starts. Imports point one way: flows, tasks, models.
"""

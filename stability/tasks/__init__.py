"""What is trained and measured, a file for each task; `stability.study.metrics` reads their tables of metrics."""

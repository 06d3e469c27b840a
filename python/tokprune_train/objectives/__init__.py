"""What is added to the task loss so that a model learns where to prune."""

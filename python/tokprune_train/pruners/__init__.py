"""What learns where to prune: modules that weigh tokens during the soft stage and end in a PruningConfig."""

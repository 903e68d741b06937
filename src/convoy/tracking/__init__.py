"""What was built and trained, shown in MLflow, and read from it."""

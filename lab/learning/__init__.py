"""What all stages that measure have in common: cells, trainings, costs, estimates."""

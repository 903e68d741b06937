"""What the verbs do: init, run, score, doctor, retrain, backup, clean-up."""

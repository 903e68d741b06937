"""What the verbs do: init, run, score, doctor, retrain, clean-up."""

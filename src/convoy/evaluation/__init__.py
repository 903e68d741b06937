"""Labels and probabilities to metrics, calibration, prediction sets, slices, comparisons and plots."""

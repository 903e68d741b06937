"""A trained candidate to a bundle: ONNX, and the proof that it gives the same probabilities as torch."""

"""A trained candidate to a bundle: ONNX, and the proof that it says the same as torch."""

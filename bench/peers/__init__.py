"""The same ONNX files served as people usually do; each file runs in an environment of its own, without Convoy."""

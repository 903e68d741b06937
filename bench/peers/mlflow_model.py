"""Writes an ONNX file as a model of MLflow's. Arguments: the ONNX file, the folder."""

import sys

import mlflow
import numpy as np
import onnx
from mlflow.models import infer_signature

if __name__ == "__main__":
    pixels = np.zeros((1, 28, 28, 1), dtype=np.uint8)
    mlflow.onnx.save_model(onnx.load(sys.argv[1]), sys.argv[2], signature=infer_signature(pixels))

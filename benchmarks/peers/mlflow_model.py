"""Save MODEL_FILE as an MLflow model in the folder argv[1], for images of argv[2] pixels a side."""

import os
import sys

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

if __name__ == "__main__":
    side = int(sys.argv[2])
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, 1, side, side), "image")]),
        Schema([TensorSpec(np.dtype("float32"), (-1, 1), "prediction")]),
    )
    mlflow.onnx.save_model(
        onnx.load(os.environ["MODEL_FILE"]),
        sys.argv[1],
        signature=signature,
        pip_requirements=[],
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options={"intra_op_num_threads": 1},
    )

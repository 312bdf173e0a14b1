"""What every peer computes with: the model file that MODEL_FILE names, one thread, the prediction alone."""

import os

import onnxruntime


def session():
    """Open the file."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(os.environ["MODEL_FILE"], settings, providers=["CPUExecutionProvider"])

"""A model file: read, opened by onnxruntime, and asked; what predict, explain, evaluate and the server share."""

"""Training: from MNIST to a checked ONNX file in the model repository. Torch lives only here."""

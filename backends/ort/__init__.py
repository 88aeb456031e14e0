"""ONNX Runtime: its processor provider, and its CUDA and TensorRT providers."""

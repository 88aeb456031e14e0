"""TensorRT, natively."""

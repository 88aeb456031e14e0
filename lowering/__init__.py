"""ONNX in, mixed-precision ONNX out: inventory, calibration, weight rounding, and one dialect a runtime."""

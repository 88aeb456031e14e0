"""ONNX in, mixed-precision ONNX out: quantisable, calibration, weight rounding, and one dialect a runtime."""

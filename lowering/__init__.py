"""ONNX in, mixed-precision ONNX out: quantisable layers, calibration, weight rounding, and one dialect a runtime."""

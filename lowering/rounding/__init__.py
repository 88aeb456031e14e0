"""Weight rounding: float weights to integers with scales, once per (layer, scheme)."""

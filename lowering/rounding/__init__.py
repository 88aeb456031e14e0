"""Weight rounding: float weights to integer integers with scales, once per (layer, scheme)."""

"""Weight rounding: float weights to integer codes with scales, once per (layer, choice)."""

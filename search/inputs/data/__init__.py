"""Calibration and evaluation data in the forms that people have them: a loader a form, listed in ``registry``."""

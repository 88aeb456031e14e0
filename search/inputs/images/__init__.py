"""Folders of images as data: reading, scaling, labels, and the preprocessing config beside a model."""

"""Soft labels for medical image segmentation with an unmodified nnU-Net v2.

Importing this package imports neither torch nor nnU-Net; the rooms below it do what they need.
"""

__version__ = "0.1.0"

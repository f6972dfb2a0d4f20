"""Data sets: what any training may use. The embedded benchmark (scenes.py, digits_wild.py, miniature.py) needs
scikit-learn, and is imported by its modules' names alone.
"""
from .pictures import PictureFolder
from .replay import ReplayedDataset

__all__ = ['PictureFolder', 'ReplayedDataset']

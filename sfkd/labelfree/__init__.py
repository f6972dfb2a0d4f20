"""Distillation of any two networks by a folder of pictures, without labels: what tools/distill.py does."""
from .networks import Network, network_of
from .training import distil

__all__ = ['Network', 'distil', 'network_of']

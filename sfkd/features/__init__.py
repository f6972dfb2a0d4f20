"""Reading any network: taps, layouts, the dry run, its stages, which of them match, and what of a batch teaches. Plain
PyTorch.
"""

"""Registries of scope ``sfkd``, children of mmengine's."""
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry

MODELS = Registry('model', scope='sfkd', parent=ROOT_MODELS,
                  locations=['sfkd.connectors', 'sfkd.losses', 'sfkd.openmmlab'])
DATASETS = Registry('dataset', scope='sfkd', parent=ROOT_DATASETS, locations=['sfkd.datasets'])
HOOKS = Registry('hook', scope='sfkd', parent=ROOT_HOOKS, locations=['sfkd.openmmlab'])


def register_entry_point(cls):
    """Register a class under scope ``sfkd`` and at the root, so that ``type='SFKD'`` also resolves in a config whose
    default scope is another library's (its registries ask the root, never a sibling)."""
    ROOT_MODELS.register_module(module=cls)
    return MODELS.register_module(module=cls)

"""Distillation configs of mmrazor 1.0, read as configs of our Distiller: ``SingleTeacherDistill`` with
``ConfigurableDistiller``.

mmrazor itself is not needed. Keys that cannot be expressed are errors, all together, each by its path. What computes
otherwise:

* the teacher is in eval mode, sees the student's pictures in its own normalisation, and its head and losses do not run;
* where two maps differ in size, both are pooled to the smaller grid (mmrazor's PKDLoss resizes the student's, its other
  losses refuse);
* PKDLoss: statistics of the batch of all processes, biased variance + 1e-5, instead of one process's, unbiased
  deviation + 1e-6;
* DISTLoss: constant vectors are met by a floor under each norm instead of a sum with the product of norms.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..errors import ConfigError, nearest
from .building import read_config

# ---- losses: mmrazor's arguments -> (our loss, the connector where the config names none; None compares scores) ----

def _cwd(tau=1.0, loss_weight=1.0):
    return dict(type='ChannelWiseDivergence', temperature=tau, weight=loss_weight), dict(type='CommonGrid')


def _pkd(loss_weight=1.0, resize_stu=True):
    return dict(type='FeatureMSE', weight=0.5 * loss_weight), dict(type='CommonGrid', standardised=True)


def _kl(tau=1.0, reduction='batchmean', loss_weight=1.0, teacher_detach=True):
    if reduction not in ('batchmean', 'mean'):
        raise ConfigError(f"reduction: {reduction!r} has no counterpart; only 'batchmean' and 'mean' have")
    reduction = 'picture' if reduction == 'batchmean' else reduction  # a map's cells are summed there
    return dict(type='KLDivergence', temperature=tau, reduction=reduction, weight=loss_weight), None


def _dist(inter_loss_weight=1.0, intra_loss_weight=1.0, tau=1.0, loss_weight=1.0, teacher_detach=True):
    return dict(type='DIST', beta=inter_loss_weight, gamma=intra_loss_weight, temperature=tau, weight=loss_weight), None


def _l2(loss_weight=1.0, normalize=True, mult=1.0, div_element=False, dist=False):
    if dist or normalize == div_element:
        raise ConfigError('normalize, div_element and dist: only the normalised sum over a picture (normalize=True, '
                          'the default) and the plain mean (normalize=False, div_element=True) have a loss here')
    if normalize:  # |a - b|^2 = 2 mult^2 (1 - cos) of vectors of length mult
        return dict(type='CosineDistance', weight=2 * mult**2 * loss_weight), dict(type='CommonGrid')
    return dict(type='FeatureMSE', weight=loss_weight), dict(type='CommonGrid')


_PREDICTIONS, _FEATURES, _LOGITS = ('preds_S', 'preds_T'), ('s_feature', 't_feature'), ('logits_S', 'logits_T')
LOSSES: dict[str, tuple[Callable, tuple[str, str]]] = {
    'ChannelWiseDivergence': (_cwd, _PREDICTIONS), 'PKDLoss': (_pkd, _PREDICTIONS), 'KLDivergence': (_kl, _PREDICTIONS),
    'DISTLoss': (_dist, _LOGITS), 'L2Loss': (_l2, _FEATURES)}
#: mmrazor's own spelling in 1.0, and the right one.
CONNECTORS = ('ConvModuleConncetor', 'ConvModuleConnector')
#: Keys of the algorithm that may only have the value that our distiller stands for; of teacher_module_inplace both
#: work.
FIXED = dict(teacher_trainable=False, teacher_norm_eval=True, student_trainable=True, calculate_student_loss=True,
             init_cfg=None)
KEYS = {'type', '_scope_', 'architecture', 'teacher', 'teacher_ckpt', 'distiller', 'data_preprocessor',
        'teacher_module_inplace', *FIXED}
DISTILLER_KEYS = {'type', 'student_recorders', 'teacher_recorders', 'distill_deliveries', 'connectors',
                  'distill_losses', 'loss_forward_mappings'}


def translate(config: Config) -> Config:
    """A whole config with our Distiller in place of mmrazor's algorithm, and with mmengine's validation in place of its
    loop.

    Raises:
        ConfigError: naming each key that cannot be expressed.
    """
    config.model = from_mmrazor(config.model)
    if 'SingleTeacherDistillValLoop' in str((config.get('val_cfg') or {}).get('type')):
        config.val_cfg = dict()
        print_log("val_cfg: the student alone is validated; for the teacher's score add "
                  "custom_hooks=[dict(type='sfkd.TeacherReportHook')]", 'current')
    hooks = [hook for hook in config.get('custom_hooks') or () if str(hook.get('type')).startswith('mmrazor.')]
    if hooks:
        raise ConfigError([f"custom_hooks: '{hook['type']}' is mmrazor's and has no counterpart here; remove it"
                           for hook in hooks])
    return config


def from_mmrazor(model: dict) -> ConfigDict:
    """The model of a config for our :class:`Distiller`.

    Args:
        model: ``dict(type='SingleTeacherDistill', architecture=..., teacher=...,
            distiller=dict(type='ConfigurableDistiller', ...))``.

    Raises:
        ConfigError: naming each key that cannot be expressed, what was found, and what can be done.
    """
    distiller = model.get('distiller') or {}
    problems = [f'model.{key}: {model[key]!r} cannot be expressed; only {value!r} can' for key, value in FIXED.items()
                if model.get(key, value) != value]
    problems += [f'model.{key}: no such key; nearest: {nearest(key, KEYS)}' for key in model if key not in KEYS]
    if str(distiller.get('type')).rpartition('.')[2] != 'ConfigurableDistiller':
        problems.append(f"model.distiller.type: {distiller.get('type')!r} has no counterpart; only "
                        "'ConfigurableDistiller' has")
    problems += [f'model.distiller.{key}: no such key; nearest: {nearest(key, DISTILLER_KEYS)}'
                 for key in distiller if key not in DISTILLER_KEYS]
    if distiller.get('distill_deliveries'):
        problems.append('model.distiller.distill_deliveries: deliveries hand data from teacher to student and have no '
                        'counterpart')
    networks = {}
    for side in ('architecture', 'teacher'):
        try:
            networks[side] = _network(model.get(side), f'model.{side}',
                                      side == 'teacher' and bool(model.get('teacher_ckpt')))
        except ConfigError as error:
            problems += error.problems
    if 'architecture' in networks and model.get('data_preprocessor'):
        problems += _preprocessor_problems(networks['architecture'], model['data_preprocessor'])
    pairs = []
    for name in distiller.get('loss_forward_mappings') or {}:
        try:
            pairs.append(_pair(name, distiller))
        except ConfigError as error:
            problems += error.problems
    problems += [f"model.distiller.distill_losses.{name}: has no entry in loss_forward_mappings"
                 for name in distiller.get('distill_losses') or ()
                 if name not in (distiller.get('loss_forward_mappings') or ())]
    if problems:
        raise ConfigError(problems)
    return ConfigDict(type='Distiller', student=networks['architecture'], teacher=networks['teacher'],
                      teacher_ckpt=model.get('teacher_ckpt'), pairs=pairs)


def _network(spec, where: str, loaded: bool) -> ConfigDict:
    """A model dict with its own data preprocessor and scope. mmrazor merges what stands beside ``cfg_path`` into that
    config's model.
    """
    if not isinstance(spec, dict):
        raise ConfigError(f'{where}: {spec!r} is no dict')
    if 'cfg_path' not in spec:
        return ConfigDict(spec)
    spec = dict(spec)
    path = spec.pop('cfg_path').replace('mmcls::', 'mmpretrain::')
    if spec.pop('pretrained', False) and not loaded:
        raise ConfigError(f"{where}.pretrained: True would download the published weights of '{path}'; give their file "
                          f"or address as {'model.teacher_ckpt' if where.endswith('teacher') else 'load_from'} and set "
                          'it to False')
    stock = read_config(path, f'{where}.cfg_path')
    config = Config(dict(model=dict(stock.model, _scope_=stock.get('default_scope'))))
    config.merge_from_dict(dict(model=spec))
    if 'data_preprocessor' in stock:
        config.model.setdefault('data_preprocessor', stock.data_preprocessor)
    return config.model


def _preprocessor_problems(student: dict, given: dict) -> Iterator[str]:
    """Where mmrazor's data preprocessor normalises otherwise than the student's own, which is the one that runs
    here.
    """
    own = student.get('data_preprocessor') or {}

    def meaning(config: dict) -> dict:
        swaps = bool(config.get('bgr_to_rgb') or config.get('to_rgb') or config.get('rgb_to_bgr'))
        return dict(mean=list(config.get('mean') or ()), std=list(config.get('std') or ()), reverses_channels=swaps)
    for key, value in meaning(given).items():
        if value != meaning(own)[key]:
            yield (f"model.data_preprocessor: {key} is {value}, the student's own config has {meaning(own)[key]}, and "
                   "a student here keeps its own: remove the key, or set it in the student's config")


def _pair(name: str, distiller: dict) -> dict:
    """One loss with its two records as a pair of taps."""
    where = f'model.distiller.loss_forward_mappings.{name}'
    given = dict((distiller.get('distill_losses') or {}).get(name) or {})
    if not given:
        raise ConfigError(f'{where}: there is no distill_losses.{name}')
    kind, at = str(given.pop('type', None)).rpartition('.')[2], f'model.distiller.distill_losses.{name}'
    if kind not in LOSSES:
        raise ConfigError(f"{at}.type: '{kind}' has no counterpart here; those that have: {', '.join(LOSSES)}")
    convert, arguments = LOSSES[kind]
    known = inspect.signature(convert).parameters
    if strange := [key for key in given if key not in known]:
        raise ConfigError([f'{at}.{key}: no argument of {kind}; nearest: {nearest(key, known)}' for key in strange])
    try:
        loss, connector = convert(**given)
    except ConfigError as error:
        raise ConfigError([f'{at}.{problem}' for problem in error.problems]) from error
    records = dict(distiller['loss_forward_mappings'][name])
    if set(records) != set(arguments):
        raise ConfigError(f"{where}: {kind} takes {' and '.join(arguments)}, not {', '.join(records)}")
    sides = {}
    for argument, record in records.items():
        side = 'student' if record.get('from_student') else 'teacher'
        if side in sides:
            raise ConfigError(f'{where}: both arguments are from the {side}')
        sides[side] = _path(record, side, distiller, f'{where}.{argument}')
        if record.get('connector'):
            if side == 'teacher':
                raise ConfigError(f"{where}.{argument}.connector: '{record['connector']}' would learn on the teacher's "
                                  'side, which can make both '
                                  'sides constant; connectors here are on the student\'s')
            connector = _connector(record['connector'], distiller)
    loss['name'] = name.removeprefix('loss_')
    return dict(sides, connector=connector, losses=[loss])


def _path(record: dict, side: str, distiller: dict, where: str) -> str:
    """The path of a tap: the source of a recorder, with an index for a call and one for a part of an output."""
    recorders = distiller.get(f'{side}_recorders') or {}
    name = record.get('recorder')
    if name not in recorders:
        raise ConfigError(f"{where}.recorder: '{name}' is not in {side}_recorders; nearest: "
                          f'{nearest(str(name), recorders)}')
    recorder = recorders[name]
    if recorder.get('type') != 'ModuleOutputs':
        raise ConfigError(f"model.distiller.{side}_recorders.{name}.type: {recorder.get('type')!r} cannot be "
                          "expressed; only 'ModuleOutputs' can")
    every = [other for loss in distiller['loss_forward_mappings'].values() for other in loss.values()
             if other.get('recorder') == name and bool(other.get('from_student')) == (side == 'student')]
    path = recorder['source']
    if any(other.get('record_idx', 0) for other in every):  # the module runs several times
        path += f"[{record.get('record_idx', 0)}]"
    return path if record.get('data_idx') is None else f"{path}[{record['data_idx']}]"


def _connector(name: str, distiller: dict) -> dict:
    where = f'model.distiller.connectors.{name}'
    config = dict((distiller.get('connectors') or {}).get(name) or {})
    if not config:
        raise ConfigError(f'{where}: there is no such connector')
    if config.pop('type', None) not in CONNECTORS:
        raise ConfigError(f"{where}.type: {distiller['connectors'][name].get('type')!r} has no counterpart here; "
                          f'{CONNECTORS[0]} has')
    for key in ('in_channel', 'out_channel', 'init_cfg'):  # channels are found by the dry run
        config.pop(key, None)
    return dict(config, type='ConvModuleConnector')

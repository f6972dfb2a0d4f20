"""A slice of the compatibility matrix, one network of each layout, and the page that is written from its rows."""
import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Strides, class and distillation tokens, hierarchical tokens, branches, one map.
BACKBONES = ['mmpretrain.MobileNetV3', 'mmpretrain.DistilledVisionTransformer', 'mmdet.PyramidVisionTransformerV2',
             'mmseg.HRNet', 'mmpretrain.LeNet5']
#: Channels last, dilation, windows, in-place blocks, no gradients in blocks, two outputs of a block, folded batches,
#: lists, decoders.
MORE_BACKBONES = ['mmpretrain.ViTEVA02', 'mmpretrain.EdgeNeXt', 'mmseg.MixVisionTransformer', 'mmseg.MobileNetV3',
                  'mmseg.BiSeNetV2', 'mmseg.ERFNet', 'mmpretrain.LeViT', 'mmpretrain.MViT',
                  'mmpretrain.RevVisionTransformer', 'mmpretrain.TNT', 'mmpretrain.Conformer', 'mmpretrain.XCiT',
                  'mmdet.TridentResNet', 'mmseg.PIDNet']
#: The smallest of its family, a segmentor, a model by its config class, and one that takes no pictures.
ZOOS = dict(timm=['timm/starnet'], torchvision=['torchvision/lraspp'],
            transformers=['transformers/DINOv3ViTBackbone', 'transformers/Siglip2VisionModel'])
MODELS = ['mmdet/yolox', 'mmseg/bisenetv2']
SEAMS = ['seam/mmpretrain/arcface', 'seam/mmdet/convnext', 'seam/mmseg/convnext']  # none, and two with layer decay


@pytest.fixture(scope='module')
def rows(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp('matrix')
    results = folder / 'rows.jsonl'
    for kind, names in dict(ZOOS, backbones=BACKBONES, models=MODELS, seam=SEAMS).items():
        tool('tools/compat_matrix.py', kind, '--only', *names, '--results', results, '--page', folder / 'page.md')
    return [json.loads(line) for line in results.read_text().splitlines()], (folder / 'page.md').read_text(), results


def test_every_family_of_the_slice_passes(rows):
    found = {row['name']: row for row in rows[0] if row['name'] not in SEAMS}
    assert set(found) == {*BACKBONES, *MODELS, *sum(ZOOS.values(), [])}
    # it takes pictures of one channel: no network for photographs
    assert 'channels' in found.pop('mmpretrain.LeNet5')['why']
    # it takes patches and their places
    assert 'pixel_attention_mask' in found.pop('transformers/Siglip2VisionModel')['why']
    all_pass(found)


@pytest.mark.long
def test_every_further_layout_passes(tool, tmp_path):
    tool('tools/compat_matrix.py', 'backbones', '--only', *MORE_BACKBONES, '--results', tmp_path / 'rows.jsonl')
    found = {row['name']: row for row in map(json.loads, (tmp_path / 'rows.jsonl').read_text().splitlines())}
    assert set(found) == set(MORE_BACKBONES)
    all_pass(found)


def all_pass(found):
    failed = {name: row for name, row in found.items()
              if not all(role['passes'] for role in row.get('roles', [dict(passes=False)]).values())}
    assert not failed
    for name, row in found.items():
        assert len(row['roles']) == (2 if name in MODELS else 4)
        for role in row['roles'].values():
            assert role['gradient'] > 0 and role['distillation_gradient'] > 0 and len(role['pairs']) >= 2, (name, role)


def test_layer_decay_treats_the_distilled_model_as_the_stock_one(rows):
    found = {row['name']: row for row in rows[0] if row['name'] in SEAMS}
    assert found.pop('seam/mmpretrain/arcface')['why'] == 'no classifier: ImageToImageRetriever'
    for name, row in found.items():
        (path, role), = row['roles'].items()
        assert role['passes'] and role['constructor'] == 'LearningRateDecayOptimizerConstructor', name
        assert path.startswith('convnext/') and role['rates'] > 10 and role['tensors'] > 200 and role['pairs'] == 4


def test_pairs_of_a_row_are_those_of_the_networks(rows):
    roles = next(row for row in rows[0] if row['name'] == 'mmseg.HRNet')['roles']
    assert roles['student of Swin']['pairs'] == [[f'backbone.stage4[{i}]', f'backbone.{path}'] for i, path in enumerate(
        ('stages.0', 'stages.1', 'stages.2', 'norm3'))]


def test_rows_of_other_libraries_are_of_the_smallest_network(rows):
    found = {row['name']: row for row in rows[0]}
    assert found['timm/starnet']['config'] == 'starnet_s050' and found['timm/starnet']['size'] == 64
    assert found['torchvision/lraspp']['config'] == 'lraspp_mobilenet_v3_large'
    roles = found['transformers/DINOv3ViTBackbone']['roles']
    assert roles['student of CNN']['pairs'] == [[f'model.layer.{i}', f'layer{i + 1}'] for i in range(4)]


def test_the_page_counts_and_explains(rows):
    page = rows[1]
    assert '**4 of the 4 that can be built here pass (100.0%)**, 1 cannot' in page
    assert '**2 of the 2 that can be built here pass' in page
    assert '| mmpretrain.LeNet5 | takes pictures of one channel: `RuntimeError' in page
    assert page.count('| mmdet/yolox |') == 1
    assert '**1 of the 1 that can be built here pass (100.0%)**, 1 cannot' in page  # transformers
    assert '| transformers/Siglip2VisionModel | takes patches' in page
    assert '`ShieldGemma2ForImageClassification` (a language model)' in page
    assert '**2 of the 2 that can be built and distilled here pass (100.0%)**, 1 cannot' in page
    assert '| mmpretrain/arcface | `no classifier: ImageToImageRetriever` |' in page
    assert '| LearningRateDecayOptimizerConstructor | 16 | 4 | same |' in page


def test_rows_that_are_there_are_not_made_again(rows, monkeypatch, capsys):
    before = rows[2].read_text()
    monkeypatch.setattr('sys.argv',
                        ['compat_matrix.py', 'backbones', '--only', 'mmseg.HRNet', '--results', str(rows[2])])
    runpy.run_path(str(ROOT / 'tools/compat_matrix.py'), run_name='__main__')
    assert 'mmseg.HRNet:' not in capsys.readouterr().out and rows[2].read_text() == before

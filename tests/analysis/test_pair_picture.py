"""The picture of a pair: every stage is on it, and a link for each pair."""
import pytest

from sfkd.analysis.pair_picture import draw_pairs


@pytest.mark.parametrize('pairs', ['auto', [dict(student='backbone.layers.2', teacher='backbone.layer2.0')]])
def test_stages_and_links(zoo, tmp_path, monkeypatch, pairs):
    from matplotlib.axes import Axes
    texts, links = [], []
    text, annotate = Axes.text, Axes.annotate
    monkeypatch.setattr(Axes, 'text',
                        lambda self, x, y, s, **kwargs: texts.append((x, s)) or text(self, x, y, s, **kwargs))
    monkeypatch.setattr(Axes, 'annotate',
                        lambda self, *args, **kwargs: links.append(args) or annotate(self, *args, **kwargs))
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), pairs=pairs)
    draw_pairs(distiller, tmp_path / 'pair.png')
    assert (tmp_path / 'pair.png').stat().st_size > 5000
    assert (0, 'backbone.layers.2\n16 x 4x4, stride 16') in texts
    assert (1, 'backbone.layer4\n64 x 2x2, stride 32') in texts
    assert (0, 'student: ImageClassifier, MlpMixer') in texts
    if pairs != 'auto':
        assert (1, 'backbone.layer2.0\n16 x 8x8, stride 8') in texts  # a module that is no stage's end
    assert len(links) == len(distiller.distillation.pairs)

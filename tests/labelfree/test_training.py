"""Crops that come again, a learning rate, and what both networks see."""
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sfkd import Distillation, PictureFolder
from sfkd.errors import ConfigError
from sfkd.labelfree.crops import Crops, as_tensor, check_sizes, random_crop
from sfkd.labelfree.drawing import GAP, TILE, TITLE, colours, draw_features
from sfkd.labelfree.training import LOWEST, factor


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(7):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / f'{i}.png')
    return PictureFolder(tmp_path)


def test_a_crop_depends_on_its_place_and_the_seed_alone(folder):
    crops = Crops(folder, 16, 3)
    first = [crops[i] for i in range(14)]
    torch.manual_seed(9), np.random.seed(9)
    assert all(torch.equal(crops[i], first[i]) for i in reversed(range(14)))
    assert not torch.equal(Crops(folder, 16, 4)[0], first[0])
    assert all(not torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])  # 14 unlike ones of 7 pictures


def test_each_picture_once_an_epoch_in_another_order(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(PictureFolder, '__getitem__', lambda self, i: seen.append(i) or Image.new('RGB', (8, 8)))
    crops = Crops(folder, 8, 0)
    for place in range(14):
        crops[place]
    assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7)) and seen[:7] != seen[7:]


def test_a_random_crop_is_a_part_of_the_picture_and_sometimes_mirrored():
    ramp = Image.fromarray(np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3)))
    rng = np.random.default_rng(0)
    rows = [as_tensor(random_crop(ramp, 32, rng))[0, 16].float() for _ in range(60)]
    rising = [bool(row[-1] > row[0]) for row in rows]
    assert 15 < sum(rising) < 45
    spans = [float(row.max() - row.min()) for row in rows]
    assert min(spans) > 25 and max(spans) > 60 and len({round(x) for x in spans}) > 20  # of 100 columns
    assert all(row.min() >= 0 and row.max() <= 99 for row in rows)


def test_pictures_that_are_too_small_are_refused(folder):
    check_sizes(folder, 80)
    with pytest.raises(ConfigError, match='--pictures: .* no more than 40 px .*--input-size is 81; .* --input-size 40'):
        check_sizes(folder, 81)


def test_the_learning_rate_rises_and_falls():
    rates = [factor(step, 200) for step in range(200)]
    assert rates[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert rates[110] == pytest.approx((1 + LOWEST) / 2) and rates[-1] == pytest.approx(LOWEST, abs=1e-3)
    assert factor(0, 1) == 1 and factor(0, 10000) == 1 / 500


def test_colours_are_the_three_principal_components():
    """A map that varies along one channel alone has its ramp as the first colour."""
    reference = torch.zeros(1, 5, 1, 101)
    reference[0, 3, 0] = torch.arange(101.)
    ours = colours(reference, reference)[0, 0, 0].float()
    ours = ours if ours[-1] > ours[0] else ours.flip(0)  # an axis has no sign
    expected = ((torch.arange(101.) - 2) / 96).clamp(0, 1) * 255
    assert torch.allclose(ours, expected, atol=1.01)
    shifted = reference.clone()
    shifted[0, 3] = 50
    assert colours(shifted, reference)[0, 0].unique().tolist() in ([127], [128])


def test_the_picture_of_what_both_see(tmp_path):
    torch.manual_seed(0)

    def network(width):
        return nn.Sequential(*(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in (
            (3, width), (width, width), (width, width), (width, 2 * width))))
    student = network(8)
    shown = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)) for i in range(3)]
    pictures = torch.stack([as_tensor(x) for x in shown]).float() / 255
    companion = Distillation(student, network(12), input_size=64)
    draw_features(student, companion, shown, pictures, tmp_path / 'seen.png')
    sheet = np.asarray(Image.open(tmp_path / 'seen.png'))
    assert sheet.shape == (TITLE + 3 * (TILE + GAP) - GAP, 3 * (TILE + GAP) - GAP, 3)
    tiles = [sheet[TITLE:TITLE + TILE, x * (TILE + GAP):x * (TILE + GAP) + TILE] for x in range(3)]
    assert np.array_equal(tiles[0][::2, ::2], np.asarray(shown[0]))
    # the pair of 8x8 cells, not the deepest, of 4x4
    assert all(16 < len(np.unique(tile.reshape(-1, 3), axis=0)) <= 64 for tile in tiles[1:])
    assert not np.array_equal(tiles[1], tiles[2])

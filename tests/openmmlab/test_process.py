"""What every tool does around its work."""
import subprocess
import sys

import pytest
import torch

CYCLES = '''
import resource, torch
from sfkd.openmmlab.process import keep_freed_memory
{prepare}
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = pages()
for _ in range(20):
    torch.zeros(16, 2 ** 20).add_(1)  # 64 MiB
print(pages() - before)
'''

LATE = '''
import multiprocessing, os, time
from sfkd.openmmlab.workers import end_with_parent
def work(parent):
    while os.getppid() == parent:
        time.sleep(0.01)
    end_with_parent()
    print('goes on')
if __name__ == '__main__':
    multiprocessing.get_context({method!r}).Process(target=work, args=(os.getpid(), )).start()
    os._exit(0)
'''


@pytest.mark.skipif(sys.platform != 'linux' or torch.cuda.is_available(), reason='for Linux without GPU')
def test_freed_memory_is_kept_for_the_next_tensors():
    """Counted in pages that the system had to give: for twenty tensors in turn, or for the first two."""
    def pages(prepare: str) -> int:
        command = [sys.executable, '-c', CYCLES.format(prepare=prepare)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    default, kept = pages(''), pages('keep_freed_memory()')
    assert kept < default / 5


@pytest.mark.skipif(sys.platform != 'linux', reason='for Linux')
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_a_data_worker_whose_run_is_gone_before_it_begins_ends(tmp_path, method):
    """Nobody would tell it: its parent is another process by then."""
    (tmp_path / 'late.py').write_text(LATE.format(method=method))
    done = subprocess.run([sys.executable, tmp_path / 'late.py'], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, '')

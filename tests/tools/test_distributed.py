"""Several processes and several agents, as clusters start them; each a real training."""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tool import free_port

ROOT = Path(__file__).resolve().parents[2]
PAIR = 'configs/mini/cls_resnet_to_mixer.py'
OPTIONS = ['--no-validate', '--cfg-options', 'model.teacher_ckpt=init', 'train_dataloader.num_workers=0']
EPOCHS = [
    'train_cfg.max_epochs=4', 'param_scheduler.1.end=4', 'param_scheduler.1.T_max=3',
    'default_hooks.checkpoint.save_best=None'
]


@pytest.fixture
def launch(small, tmp_path):
    """Start tools/dist_train.sh; its output goes to a file beside the work directory."""
    started, port = [], free_port()

    def start(name, processes, *options, **environment):
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', PYTHON=sys.executable,
                           **dict(dict(PORT=port), **environment))
        command = [
            'bash', 'tools/dist_train.sh', PAIR,
            str(processes), '--work-dir',
            str(tmp_path / name), *OPTIONS, *small, *EPOCHS, *options
        ]
        log = (tmp_path / f'{name}.log').open('a')
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                             start_new_session=True))
        return started[-1]
    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def weights(folder):
    return torch.load(folder / 'epoch_4.pth', weights_only=False)['state_dict']


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def workers(agent):
    """The process numbers of an agent's ranks."""
    return [child for child in children(agent.pid) if b'tools/train.py' in Path(f'/proc/{child}/cmdline').read_bytes()]


def children(process):
    return [int(child) for child in Path(f'/proc/{process}/task/{process}/children').read_text().split()]


def alive(process):
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def wait_for(file, process, seconds=300):
    end, log = time.time() + seconds, file.parent.with_suffix('.log')
    while not file.exists():
        assert process.poll() is None and time.time() < end, log.read_text()[-3000:]
        time.sleep(0.01)


@pytest.mark.long
def test_two_agents_train_as_one(launch, tmp_path):
    """NNODES=2 on this machine: two agents of one process each give the weights of one agent with two."""
    assert launch('one', 2).wait(300) == 0
    first = launch('two', 1, NNODES='2', NODE_RANK='0')
    second = launch('two_second', 1, NNODES='2', NODE_RANK='1')
    assert first.wait(300) == second.wait(300) == 0
    assert same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))


RESTARTED = """
import os, time, torch
from torch.distributed import distributed_c10d
from sfkd.openmmlab.process import prepare_process
again, rank = os.environ['TORCHELASTIC_RESTART_COUNT'] != '0', int(os.environ['RANK'])
make_group = distributed_c10d._new_process_group_helper
def late(*args, **kwargs):
    if again and rank == 1:
        time.sleep(8)  # the other looks for its address before it is there
    return make_group(*args, **kwargs)
distributed_c10d._new_process_group_helper = late
prepare_process('pytorch')
total = torch.ones(1)
torch.distributed.all_reduce(total)
if not again:
    os._exit(1) if rank == 1 else time.sleep(60)
open(f'{os.path.dirname(__file__)}/met{rank}', 'w').write(str(int(total)))
torch.distributed.destroy_process_group()  # a group that is alive when Python ends can abort the process
"""


def test_processes_that_are_started_again_do_not_look_for_those_that_died(tmp_path):
    """torchrun's own store still holds their addresses."""
    (tmp_path / 'restarted.py').write_text(RESTARTED)
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--master_addr=127.0.0.1', f'--master_port={free_port()}',
         '--nproc_per_node=2', '--max_restarts=1', tmp_path / 'restarted.py'], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(tmp_path / f'met{rank}').read_text() for rank in range(2)] == ['2', '2']


@pytest.mark.long
def test_a_rank_that_dies_is_started_again_where_the_run_was(launch, tmp_path):
    assert launch('whole', 2).wait(300) == 0
    agent = launch('restarted', 2, MAX_RESTARTS='2')
    wait_for(tmp_path / 'restarted/epoch_2.pth', agent)
    os.kill(workers(agent)[1], signal.SIGKILL)
    assert agent.wait(300) == 0
    text = (tmp_path / 'restarted.log').read_text()
    assert re.search(r'--resume: from .*epoch_[23].pth', text)
    assert same(weights(tmp_path / 'whole'), weights(tmp_path / 'restarted'))


@pytest.mark.long
def test_a_rank_that_dies_ends_the_others_with_the_reason(launch, tmp_path):
    agent = launch('dead', 2)
    wait_for(tmp_path / 'dead/epoch_1.pth', agent)
    left, killed = workers(agent)
    os.kill(killed, signal.SIGKILL)
    begun = time.time()
    assert agent.wait(120) != 0 and time.time() - begun < 60
    assert 'Signal 9 (SIGKILL)' in (tmp_path / 'dead.log').read_text()
    assert not Path(f'/proc/{left}').exists()


def test_processes_and_their_data_workers_end_with_an_agent_that_is_killed(launch, tmp_path):
    agent = launch('orphans', 2, 'train_cfg.max_epochs=400', 'train_dataloader.num_workers=2')
    wait_for(tmp_path / 'orphans/epoch_1.pth', agent)
    end, left = time.time() + 60, []
    while len(left) < 6:  # workers begin anew with every epoch
        assert time.time() < end
        left = [child for worker in workers(agent) for child in (worker, *children(worker))]
    agent.kill()
    agent.wait()
    end = time.time() + 30
    while goes_on := [process for process in left if alive(process)]:
        assert time.time() < end, [Path(f'/proc/{process}/status').read_text() for process in goes_on]
        time.sleep(0.05)


@pytest.mark.long
def test_an_agent_that_is_told_to_end_saves_first(launch, tmp_path):
    """SIGTERM to the agent alone; then the same command, as Slurm starts it again."""
    agent = launch('ended', 2)
    wait_for(tmp_path / 'ended/epoch_2.pth', agent)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(120) != 0
    assert 'SIGTERM: the run has ended' in (tmp_path / 'ended.log').read_text()
    assert launch('ended', 2, SLURM_RESTART_COUNT='1').wait(300) == 0
    assert launch('whole', 2).wait(300) == 0
    assert same(weights(tmp_path / 'whole'), weights(tmp_path / 'ended'))


@pytest.mark.long
def test_processes_with_different_numbers_of_batches_do_not_begin(launch, tmp_path):
    options = [f'train_dataloader.{key}' for key in ('sampler.round_up=False', 'dataset.indices=59', 'batch_size=29')]
    assert launch('uneven', 2, *options).wait(120) != 0
    assert 'the processes would make 1 to 2 batches an epoch' in (tmp_path / 'uneven.log').read_text()

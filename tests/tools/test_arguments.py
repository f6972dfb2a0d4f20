"""Arguments that cannot be are one message, before the work."""
import pytest

PAIR = 'configs/mini/cls_resnet_to_mixer.py'


@pytest.mark.parametrize('name, arguments, message', [
    ('inspect_pair', [PAIR, '--teacher', 'configs/mini/cls_swin.py'], 'give a config, or both --student and --teacher'),
    ('inspect_pair', ['--student', 'a', '--teacher', 'b', '--load-teacher'], '--load-teacher and --cfg-options are of'),
    ('inspect_pair', [PAIR, '--picture', 'pair.xyz'], "--picture: 'pair.xyz' must end in .png"),
    ('inspect_pair', [PAIR, '--json', 'setup.py/x.json'], "--json: 'setup.py/x.json' cannot be written"),
    ('analyse_terms', [PAIR, '--sigma', '0'], '--sigma 0: it must be above 0'),
    ('analyse_terms', [PAIR, '--pictures', '0'], '--pictures 0: 1 at least'),
    ('browse_dataset', [PAIR, '--out', 'sheet.xyz'], "--out: 'sheet.xyz' must end in .png"),
    ('quickstart', ['cls', '--epochs', '1'], '--epochs 1: the first of at least 2 epochs warms'),
    ('compare', ['--tables-only', '--results', 'docs/results/learning_rates.jsonl'], 'is no row of tools/compare.py'),
    ('compare', ['--tables-only', '--plot', 'g.xyz'], "--plot: 'g.xyz' must end in .png"),
    ('train', ['configs/_base_/datasets/fashion_mnist.py'], 'has none; give the config of a whole run'),
    ('test', ['configs/_base_/datasets/fashion_mnist.py', 'x.pth'], 'has none; give the config of a whole run'),
])
def test_what_cannot_be_is_said_before_the_work(tool, name, arguments, message):
    text = tool(f'tools/{name}.py', *arguments, status=2)
    assert message in text and 'Traceback' not in text

"""The table of terms through the command line."""
import json

PAIR, TERMS = 'configs/mini/cls_resnet_to_mixer.py', ('spatial', 'frequency')


def test_terms_of_the_untrained_student_and_of_a_checkpoint(tool, small, tmp_path):
    options = ['--cfg-options', *small, 'model.teacher_ckpt=init']
    tool('tools/train.py', PAIR, '--no-validate', '--work-dir', tmp_path, *options)
    found = {}
    for name, checkpoints in (('untrained', []), ('trained', ['--checkpoints', tmp_path / 'epoch_1.pth'])):
        out = tmp_path / f'{name}.json'
        text = tool('tools/analyse_terms.py', PAIR, '--pictures', 10, '--json', out, *checkpoints, *options)
        found[name] = json.loads(out.read_text())
        for row in found[name]:
            assert f"  {row['name']}: CKA {row['cka']:.3f}; spatial {row['losses']['spatial']:.3g}" in text
            assert set(row['gradients']) == {'spatial', 'frequency', 'task'} and min(row['gradients'].values()) > 0
            assert set(row['bands']) >= {'LH1', 'HL1', 'HH1'}
    assert [row['checkpoint'] for row in found['untrained']] == ['untrained'] * len(found['untrained'])
    assert {row['checkpoint'] for row in found['trained']} == {str(tmp_path / 'epoch_1.pth')}
    for before, after in zip(found['untrained'], found['trained'], strict=True):
        assert before['name'] == after['name'] and after['losses']['spatial'] < before['losses']['spatial']


    text = tool('tools/analyse_terms.py', PAIR, '--checkpoints', tmp_path / 'student_latest.pth', *options, status=2)
    assert 'is no checkpoint of a whole run of this config' in text and 'Traceback' not in text


def test_the_untrained_student_has_the_weights_that_its_config_begins_with(tool, small, tmp_path):
    """A head of zeros sends nothing back from the task's loss: its gradient is in the head alone, where no term has
    one.
    """
    tool('tools/analyse_terms.py', PAIR, '--pictures', 10, '--json', tmp_path / 'out.json', '--cfg-options', *small,
         'model.teacher_ckpt=init', 'model.student.head.init_cfg.type=Constant',
         'model.student.head.init_cfg.layer=Linear', 'model.student.head.init_cfg.val=0.0')
    rows = json.loads((tmp_path / 'out.json').read_text())
    assert rows and all(row['cosine'] == 0 < row['gradients']['spatial'] for row in rows)


def test_a_pair_without_a_term_is_refused(tool, small):
    options = ['--cfg-options', *small, 'model.teacher_ckpt=init', *(f'model.{key}_weight=0' for key in TERMS)]
    text = tool('tools/analyse_terms.py', PAIR, *options, status=2)
    assert 'distils nothing: every weight is 0' in text and 'Traceback' not in text

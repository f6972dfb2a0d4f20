"""The report of a run as one page of HTML."""
from __future__ import annotations

from collections.abc import Callable

from ...errors import ConfigError
from . import course, outcomes, page, within
from .pictures import LeftOut
from .subject import Subject

#: Anchor, title and maker of each section, in the order of the page; those of a distillation alone in the middle.
OF_ALL = [('curves', 'Losses and scores over training', course.curves)]
OF_DISTILLATION = [('gradients', 'What each term asks of the student', within.gradients),
                   ('cka', 'How alike the stages of both networks are', within.similarity),
                   ('bands', 'Energy by wavelet band', within.bands),
                   ('spectrum', 'The spectrum of what the student misses', within.spectra),
                   ('maps', 'Maps and sub-bands side by side', within.maps)]
IN_THE_END = [('predictions', 'Predictions', outcomes.predictions), ('classes', 'Scores by class', outcomes.classes)]


def run_report(subject: Subject, tested: dict[str, float] | None = None, command: str = '') -> str:
    """The page of one run.

    Args:
        subject: the run.
        tested: ``{who: score}`` on the test split, in %, of a quickstart; empty where there is none.
        command: that makes this page again.
    """
    sections = OF_ALL + OF_DISTILLATION * subject.distils + IN_THE_END
    return page.document(f'Report of {subject.run.name}', course.head(subject, tested or {}, command),
                         [(anchor, title, _made(make, subject)) for anchor, title, make in sections])


def _made(make: Callable[[Subject], str], subject: Subject) -> str:
    try:
        return make(subject)
    except LeftOut as reason:
        return page.left_out(str(reason))
    except ConfigError as error:
        return page.left_out(' '.join(error.problems))

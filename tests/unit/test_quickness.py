"""What takes no time is told from what does, and from what was disturbed once."""

from worker.quickness import HANDOVER_S, Quickness

OFTEN = 30


def after(*seconds: float) -> bool:
    quickness = Quickness()
    for each in seconds:
        quickness.note(each)
    return bool(quickness)


def test_nothing_is_quick_before_it_has_shown_it() -> None:
    assert not after()
    assert not after(0.0)
    assert after(*[0.0] * OFTEN)


def test_what_takes_its_time_is_never_quick() -> None:
    assert not after(*[HANDOVER_S * 1.1] * OFTEN)


def test_one_disturbed_time_changes_nothing_and_several_do() -> None:
    assert after(*[0.0] * 10 * OFTEN, 60.0)
    assert not after(*[0.0] * 10 * OFTEN, *[60.0] * 3)
    assert after(*[0.0] * OFTEN, *[60.0] * 3, *[0.0] * OFTEN)

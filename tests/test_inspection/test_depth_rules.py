"""Rules about depth on figures that are made up: on both sides of each limit."""

from types import SimpleNamespace

import pytest

from mmmask3d.inspection.depth_rules import check_depth
from mmmask3d.inspection.findings import Findings
from mmmask3d.inspection.measures import DepthMeasures, Measures

USUAL = DepthMeasures(
    stored_type='uint16',
    stored_high=4000,
    invalid=0.1,
    low=0.9,
    near=1.0,
    median=2.0,
    high=4.0,
    at_highest=0.001,
    at_next=0.001,
    at_limit=0.0,
    distinct=1000,
    step=1,
)


def rules(*changes, count=10, scale=1000.0, metric=True, max_depth=None, unsure=None):
    """Findings by code; the changes are those of the first frames, of all where there is one."""
    changes = changes * count if len(changes) == 1 else changes + ({},) * (count - len(changes))
    frames = SimpleNamespace(depth_scale=scale, max_depth=max_depth, min_confidence=2)
    source = SimpleNamespace(metric=metric, frames=frames, unsure=unsure)
    measures = [
        Measures(f'{i}', f'rgb/{i}.png', f'depth/{i}.png', depth=DepthMeasures(**vars(USUAL) | c))
        for i, c in enumerate(changes)
    ]
    found = Findings('set')
    check_depth(source, [*measures, Measures('x', 'rgb/x.png', 'depth/x.png')], found)
    return {f.code: f for f in found.found}


def times(factor, low=0.9, near=1.0, median=2.0, high=4.0):
    figures = dict(low=low, near=near, median=median, high=high)
    return {name: value * factor for name, value in figures.items()}


def test_a_usual_set_has_no_finding():
    assert rules({}) == {}
    assert rules({}, metric=False) == {}


# ---------------------------------------------------------------- unit

# Typical figures of real sets of frames, in metres: nearest twentieth and median.
ROOMS = {
    'NYU Depth v2': (1.3, 2.77),
    'SUN RGB-D': (1.24, 2.98),
    '7-Scenes': (0.96, 1.82),
    'TUM, turning': (0.8, 1.06),
    'TUM, cabinet': (1.12, 1.42),
    'RealSense on a robot': (0.63, 1.17),
}
DESK = (0.17, 0.27)  # a phone over a desk


@pytest.mark.parametrize('room', ROOMS)
def test_rooms_in_their_unit_pass_and_in_another_do_not(room):
    near, median = ROOMS[room]
    for scale in (1, 1000, 5000, 10000):
        assert 'unit' not in rules(times(1, near=near, median=median), scale=scale)
    # stored, read
    for stored, read in ((1000, 5000), (5000, 1000), (1000, 10000), (10000, 1000), (100, 1000)):
        factor = stored / read
        found = rules(times(factor, near=near, median=median), scale=read)
        assert found['unit'].level == 'warning', (stored, read)
        if stored != 100:  # which is further from 2 m for some
            assert f'depth_scale={stored} ' in found['unit'].advice, (stored, read)
    for stored, read in ((1000, 1), (1, 1000), (1000, 100000)):
        found = rules(times(stored / read, near=near, median=median), scale=read)
        assert found['unit'].level == 'error', (stored, read)


def test_a_desk_passes_in_millimetres_and_where_the_step_proves_the_scale():
    desk = times(1, near=DESK[0], median=DESK[1])
    assert 'unit' not in rules(desk)
    assert 'unit' not in rules(desk | dict(step=0), scale=1)
    assert rules(desk, scale=5000)['unit'].level == 'warning'
    assert 'unit' not in rules(desk | dict(step=10), scale=5000)
    assert 'unit' in rules(desk | dict(step=4), scale=5000)
    # One frame that has another step is enough.
    others = [desk | dict(step=5)] * 9
    assert 'unit' in rules(*others, desk | dict(step=3), scale=5000)
    assert 'unit' in rules(desk | dict(step=0), scale=5000)  # floats prove nothing
    assert 'unit' in rules(desk | dict(step=64), scale=256)  # nor does a scale beside millimetres


@pytest.mark.parametrize(
    ('figures', 'scale', 'doubted'),
    [
        (dict(near=0.16, median=0.3), 1000, False),
        (dict(near=0.14, median=0.3), 1000, True),
        (dict(near=0.3, median=0.76), 5000, False),
        (dict(near=0.3, median=0.74), 5000, True),
        (dict(near=2.0, median=9.9), 1000, False),
        (dict(near=2.0, median=10.1), 1000, True),
        (dict(near=2.4, median=5.0), 1000, False),
        (dict(near=2.6, median=5.0), 1000, True),
        (dict(near=2.6, median=4.4), 1000, False),
    ],
)
def test_limits_of_the_unit(figures, scale, doubted):
    assert ('unit' in rules(figures, scale=scale)) == doubted
    assert 'unit' not in rules(figures, scale=scale, metric=False)


@pytest.mark.parametrize(
    ('step', 'scale', 'doubted'),
    [(5, 1000, True), (10, 1000, False), (1, 1000, False), (5, 1, False)],
)
def test_a_step_of_five_says_what_was_stored(step, scale, doubted):
    # A desk at 5000 per metre, read in millimetres, is as far away as a room.
    found = rules(times(5, near=DESK[0], median=DESK[1]) | dict(step=step), scale=scale)
    assert ('unit' in found) == doubted
    if doubted:
        assert 'multiples of 5, as of millimetres kept at 5000' in found['unit'].message


def test_the_unit_is_judged_by_the_middle_frame():
    far = times(5)
    assert 'unit' not in rules(*[far] * 4)
    assert 'unit' in rules(*[far] * 6)


def test_what_is_proposed():
    found = rules(times(1000, near=1, median=2), scale=1)['unit']
    # 2 m in millimetres comes before what would make it 4 m or 1 m.
    assert found.advice.startswith('depth_scale=1000 (millimetres) would make it 2.00 m.')
    assert '2e+03 m with depth_scale=1,' in found.message
    tenfold = rules(times(10))['unit'].advice
    assert tenfold.index('depth_scale=10000 ') < tenfold.index('depth_scale=5000 ')  # 2 m, 4 m
    assert found.files == ('depth/0.png',)
    rotated = rules(times(8) | dict(step=16))['unit']
    assert rotated.advice.startswith('all stored values are multiples of 8')
    assert 'makes it 2.00 m' in rotated.advice
    assert 'multiples of 8' not in rules(times(8) | dict(step=12))['unit'].advice
    assert 'multiples of 8' not in rules(times(8) | dict(step=0))['unit'].advice
    assert 'relative' in rules(times(20) | dict(stored_type='uint8'))['unit'].advice
    assert 'relative' not in rules(times(20))['unit'].advice
    assert rules(times(1000), scale=30)['unit'].advice.startswith('No common depth_scale fits')
    assert 'outdoor' in rules(times(8))['unit'].advice
    assert 'outdoor' not in rules(times(0.001))['unit'].advice


# ---------------------------------------------------------------- holes and steps


def test_holes():
    found = rules(*({'invalid': i / 10} for i in range(10)))
    assert found['mostly-holes'].files == ('depth/9.png',)
    assert found['mostly-holes'].details == ('90.0% without a reading',)
    assert 'mostly-holes' not in rules({'invalid': 0.8})


@pytest.mark.parametrize(
    ('full', 'count', 'said'),
    [(10, 10, True), (9, 10, True), (8, 10, False), (7, 7, False), (8, 8, True)],
)
def test_in_filled(full, count, said):
    changes = [{'invalid': 0.0}] * full + [{}] * (count - full)
    assert ('in-filled' in rules(*changes, count=count)) == said


def test_few_values():
    assert 'quantised' not in rules({'distinct': 257})
    assert 'quantised' not in rules({'distinct': None})
    assert 'quantised' not in rules(*[{'distinct': 256}] * 8)
    found = rules(*[{'distinct': 256}] * 9)['quantised']
    assert (found.level, 'at most 256 different' in found.message) == ('warning', True)
    assert 'though more bits are stored' in found.message
    eight = rules({'distinct': 200, 'stored_type': 'uint8'}, metric=False)['quantised']
    assert (eight.level, '(8 bits)' in eight.message) == ('note', True)
    assert 'relative' not in eight.advice


# ---------------------------------------------------------------- limits

HEAP = dict(at_highest=0.02, at_next=0.0039)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ([HEAP] * 10, True),
        ([HEAP] * 2, True),
        ([HEAP], False),  # one of ten: as good as any greatest value
        ([HEAP | dict(at_next=0.0041)] * 10, False),
        ([HEAP | dict(at_next=0.02)] * 10, False),  # two equally common last values: coarse steps
        ([dict(at_highest=0.0051, at_next=0)] * 10, True),
        ([dict(at_highest=0.0049, at_next=0)] * 10, False),
        ([HEAP | dict(high=3 + i / 10) for i in range(10)], False),  # each ends elsewhere
        ([dict(at_highest=1.0, at_next=0, low=4.0)] * 10, False),  # of one value all over
    ],
)
def test_clipped(changes, said):
    changes = changes + [{}] * (10 - len(changes))
    found = rules(*changes)
    assert ('clipped' in found) == said
    assert 'clipped' not in rules(*changes, metric=False)
    # The greatest value of the type says more.
    assert 'clipped' not in rules(*[c | dict(at_limit=0.02) for c in changes])


def test_which_are_clipped():
    found = rules(HEAP, {}, HEAP | dict(high=5.0), HEAP)['clipped']
    assert found.files == ('depth/0.png', 'depth/3.png')
    assert found.message.startswith('2 of 10 depth maps are clipped')
    assert 'exactly 4 m' in found.message


def test_greatest_value_of_the_type():
    found = rules(dict(at_limit=0.0006, stored_high=65535), dict(at_limit=0.0004))['limit-value']
    assert found.files == ('depth/0.png',)
    assert found.details == ('0.1% of the pixels are 65535',)
    assert 'limit-value' not in rules(dict(at_limit=0.5), metric=False)


def test_far_readings():
    found = rules(dict(high=20.1), dict(high=19.9))['far-readings']
    assert found.files == ('depth/0.png',)
    assert found.details == ('up to 20.1 m',)
    assert 'far-readings' not in rules(dict(high=50.0, near=1, median=12.0))  # no indoor set


def test_codes_for_no_reading():
    found = rules(dict(high=1e10, near=1, median=2.0), *[dict(high=9.0, median=2.0)] * 3)
    assert found['code-values'].level == 'warning'
    assert found['code-values'].details == ('up to 1e+10 m',)
    assert 'far-readings' not in found  # the same said twice
    assert 'code-values' not in rules(dict(high=4000.0, median=3000.0))  # a wrong unit


def test_low_confidence():
    found = rules(*[dict(unsure=0.5)] * 2, *[dict(unsure=0.0)] * 8)['low-confidence']
    assert (found.level, found.message) == ('note', 'min_confidence=2 drops 10.0% of the readings')
    converted = rules({}, unsure=0.25)['low-confidence']
    assert converted.message == 'the conversion dropped 25.0% of the readings for low confidence'
    assert 'low-confidence' in rules({}, unsure=0.0)

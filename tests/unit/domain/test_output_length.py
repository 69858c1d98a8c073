from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_svc.domain.prediction.output_length import OutputLengths


def make_lengths() -> OutputLengths:
    return OutputLengths(quantile=0.8, min_samples=20)


def test_max_tokens_is_predicted_until_enough_finished() -> None:
    lengths = make_lengths()
    for _ in range(19):
        lengths.learn("m", 100, 10)
    assert lengths.predict("m", 100) == 100

    lengths.learn("m", 100, 10)

    assert lengths.predict("m", 100) == 10


def test_the_quantile_of_what_finished_is_predicted() -> None:
    lengths = make_lengths()
    for n in range(1, 101):
        lengths.learn("m", 100, n)

    assert lengths.predict("m", 100) == 81
    assert lengths.predict("m", 70) == 70, "but never more than max_tokens"


def test_models_and_magnitudes_of_max_tokens_are_kept_apart() -> None:
    lengths = make_lengths()
    for _ in range(20):
        lengths.learn("m", 16, 5)

    assert lengths.predict("m", 4_096) == 4_096
    assert lengths.predict("other", 16) == 16


def test_what_was_emitted_is_not_to_come() -> None:
    lengths = make_lengths()
    for _ in range(20):
        lengths.learn("m", 100, 40)

    assert lengths.predict("m", 100, emitted_tokens=30) == 10
    assert lengths.predict("m", 100, emitted_tokens=60) == 40, "longer than usual: anything may come"


def test_old_lengths_are_forgotten() -> None:
    lengths = make_lengths()
    for _ in range(300):
        lengths.learn("m", 1_000, 900)
    for _ in range(300):
        lengths.learn("m", 1_000, 10)

    assert lengths.predict("m", 1_000) == 10


def test_the_number_of_models_remembered_is_bounded() -> None:
    lengths = make_lengths()
    for n in range(2_100):
        for _ in range(20):
            lengths.learn(f"m{n}", 100, 10)

    assert len(lengths._windows) == 2_048
    assert lengths.predict("m0", 100) == 100
    assert lengths.predict("m2099", 100) == 10


def test_it_knows_how_often_it_covers() -> None:
    lengths = make_lengths()
    for n in range(1_000):
        lengths.learn("m", 127, 64 + (n * 37) % 60)

    coverage = lengths.coverage

    assert coverage.count == 1_000
    assert 0.75 < coverage.covered / coverage.count < 0.9


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    learned=st.lists(st.integers(1, 500), max_size=60),
    max_tokens=st.integers(1, 500),
    emitted=st.integers(0, 600),
)
def test_a_prediction_is_at_least_one_and_at_most_what_is_left(
    learned: list[int], max_tokens: int, emitted: int
) -> None:
    lengths = make_lengths()
    for length in learned:
        lengths.learn("m", max_tokens, length)

    assert 1 <= lengths.predict("m", max_tokens, emitted) <= max(1, max_tokens - emitted)

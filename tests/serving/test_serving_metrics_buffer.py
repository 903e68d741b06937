"""What is brought to Prometheus later, and together, is what one observation after the other would have been."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving import metrics as module
from serving.metrics import MetricsBuffer

BUCKETS = (0.1, 0.5, 1.0)


def histogram() -> Histogram:
    return Histogram("seconds", "", registry=CollectorRegistry(), buckets=BUCKETS)


def samples(histogram: Histogram) -> dict[str, float]:
    (family,) = histogram.collect()
    # When it was made; that differs.
    return {
        sample.name + str(sample.labels): round(sample.value, 6)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.sampled_from(BUCKETS) | st.floats(0, 2, allow_subnormal=False), max_size=30))
def test_values_that_are_brought_together_fill_the_same_buckets_as_one_by_one(values: list[float]) -> None:
    together, one_by_one = histogram(), histogram()
    buffer = MetricsBuffer()
    for value in values:
        buffer.observe(together, value)
        one_by_one.observe(value)
    assert samples(together) == samples(histogram())
    buffer.flush()
    buffer.flush()  # nothing twice
    assert samples(together) == samples(one_by_one)


def test_no_count_of_any_thread_is_lost_while_others_bring() -> None:
    counter = Counter("some", "", registry=CollectorRegistry())
    buffer = MetricsBuffer()
    threads = [threading.Thread(target=lambda: [buffer.count(counter) for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        buffer.flush()
    buffer.flush()
    assert counter._value.get() == 20_000


def test_the_last_value_that_is_shown_holds_and_the_end_brings_what_is_left() -> None:
    gauge = Gauge("inside", "", registry=CollectorRegistry())
    buffer = MetricsBuffer()
    buffer.start()
    for value in (3, 7, 2):
        buffer.set_gauge(gauge, value)
    buffer.stop()
    assert gauge._value.get() == 2


def test_it_is_brought_without_being_asked() -> None:
    counter, buffer = Counter("some", "", registry=CollectorRegistry()), MetricsBuffer()
    buffer.start()
    try:
        buffer.count(counter)
        for _ in range(50):
            if counter._value.get():
                break
            threading.Event().wait(module.FLUSH_EVERY_S / 10)
        assert counter._value.get() == 1
    finally:
        buffer.stop()


def test_a_failing_metric_ends_no_counting(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "FLUSH_EVERY_S", 0.01)
    registry, buffer = CollectorRegistry(), MetricsBuffer()
    bad, good = Gauge("bad", "", registry=registry), Counter("good", "", registry=registry)
    buffer.start()
    try:
        for brought in range(1, 4):
            buffer.set_gauge(bad, "no number")  # type: ignore[arg-type]
            buffer.count(good)
            deadline = time.monotonic() + 5
            while good._value.get() < brought:
                assert time.monotonic() < deadline, "nothing is brought any more"
                time.sleep(0.01)
    finally:
        buffer.stop()
    assert caplog.text.count("cannot be counted") == 1

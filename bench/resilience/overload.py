"""Ten times the peak load of a model of 20 ms, on one core, by an open loop on the other."""

from collections import Counter
from typing import Any

import numpy as np

from bench import arrivals
from bench.arrivals import Arrival
from bench.bodies import deploy
from bench.load import LOAD_CORE, SERVER_CORE
from bench.resilience import standin
from bench.resilience.ground import PATH, Ground, claim
from bench.samples import IMAGES
from convoy.core import paths

STANDIN_S = 0.02
DEADLINE_MS = 1000
RECOVERY_S = 5.0


def hold(ground: Ground) -> dict[str, Any]:
    """Peak load by a closed loop, then ten times as much, then half of it."""
    size, deployed = ground.size, ground.folder / "standin"
    model_s = standin.write(ground.folder / "bundle", paths.bundle(IMAGES), STANDIN_S)
    deploy(deployed, image=ground.folder / "bundle")
    with ground.serving(deployed, SERVER_CORE) as load:
        peak = load.run(16, size.peak_s, LOAD_CORE)
        peak_rate = peak["requests"] / peak["seconds"]
        environment = {
            "URL": load.url,
            "LIVEZ": load.url.replace(PATH, "/livez"),
            "BODY": str(load.bodies[0].absolute()),
            "RATE": str(round(10 * peak_rate)),
            "SECONDS": str(size.overload_s),
            "AFTER_RATE": str(max(1, round(peak_rate / 2))),
            "AFTER_SECONDS": str(size.after_s),
            "DEADLINE_MS": str(DEADLINE_MS),
        }
        found = arrivals.press(environment, ground.folder, LOAD_CORE)
    facts = {"model_ms": round(model_s * 1000, 2), "peak_per_s": round(peak_rate, 1)}
    return {**facts, **_judge(found, size.overload_s, peak_rate)}


def _judge(found: list[Arrival], seconds: float, peak_rate: float) -> dict[str, Any]:
    over = [one for one in found if one.scenario == "overload"]
    good = [one for one in over if one.status == 200 and one.took_ms <= DEADLINE_MS]
    refused = [one.took_ms for one in over if one.status in (429, 503)]
    probes = [one for one in found if one.scenario == "probe"]
    ended_s = max(one.ended_s for one in over)
    late = [one.ended_s - ended_s for one in found if one.scenario == "after" and one.status != 200]
    return {
        "offered_per_s": round(len(over) / seconds, 1),
        "statuses": {str(status): count for status, count in Counter(one.status for one in over).items()},
        "goodput_share_of_peak": claim(len(good) / seconds / peak_rate, 0.9, at_most=False),
        "rejection_p99_ms": claim(float(np.percentile(refused, 99)), 50),
        "probe_p99_ms": claim(float(np.percentile([one.took_ms for one in probes], 99)), 250),
        "probes_not_answered": claim(sum(one.status != 200 for one in probes), 0),
        "seconds_until_normal": claim(max([0.0, *late]), RECOVERY_S),
    }

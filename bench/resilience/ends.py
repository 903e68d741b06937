"""Processes that end: a worker that is killed, an instance that is told to go."""

import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench import servers
from bench.load import Load
from bench.resilience.ground import Ground, ask, beside, claim, for_seconds, seconds_until, workers_of

RECOVERY_S = 5.0
WORKERS = 2
CONNECTIONS = 8


def hold_kills(ground: Ground) -> dict[str, Any]:
    """One of two workers is killed under load: who else fails, and when both are there again."""
    failed, back_s, asked = [], [], 0
    for _ in range(ground.size.kills):
        with ground.serving(workers=WORKERS) as load:
            with beside(partial(_ask_for, 12.0, load)) as found:
                time.sleep(3)
                victim = workers_of(load)[0]
                victim.kill()
                back_s.append(seconds_until(partial(_all_there, load, victim.pid)))
            failed.append(sum(status != 200 for status in found[0]))
            asked += len(found[0])
    return {
        "asked": asked,
        # All connections at most were in flight in the worker that died.
        "failed_per_kill": claim(max(failed), CONNECTIONS),
        "seconds_until_back": claim(max(back_s), RECOVERY_S),
    }


def _ask_for(seconds: float, load: Load, _: threading.Event) -> list[int]:
    return ask(load, for_seconds(seconds), CONNECTIONS)


def _all_there(load: Load, victim: int) -> bool:
    return len([worker for worker in workers_of(load) if worker.pid != victim]) >= WORKERS


def hold_drain(ground: Ground) -> dict[str, Any]:
    """Two instances behind the gateway, each told in turn to go and started again, under load."""
    share = ground.size.drained // CONNECTIONS
    with ExitStack() as stack:
        instances = [stack.enter_context(ExitStack()) for _ in range(2)]
        ports = [_start(ground, instance, number) for number, instance in enumerate(instances)]
        gateway_log = ground.folder / "gateway.log"
        port = stack.enter_context(servers.gateway(ports, ground.folder, gateway_log))
        load = ground.load(port)
        servers.wait_for(load, gateway_log)
        ended = 0
        with beside(lambda _: ask(load, lambda answers: answers >= share, CONNECTIONS)) as found:
            for instance in instances:
                time.sleep(0.7)
                instance.close()  # SIGTERM, and waits for its end
                ended += 1
                if instance is instances[0]:
                    _start(ground, instance, 0, ports[0])
    return {
        "asked": len(found[0]),
        "instances_ended": ended,
        "failed": claim(sum(status != 200 for status in found[0]), 0),
    }


def _start(ground: Ground, stack: ExitStack, number: int, port: int | None = None) -> int:
    log = ground.folder / f"instance-{number}.log"
    found = stack.enter_context(servers.ours(ground.deployed, log, port=port))
    servers.wait_for(ground.load(found), log)
    return found

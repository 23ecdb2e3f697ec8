"""Trial functions that need no TensorFlow, for tests of the machinery around trials."""

import ctypes
import errno
import math
import os
import pathlib
import random
import signal
import time

EFFECT = {"baseline": 0.5, "clip": 0.7, "layernorm": 0.5}


def score(config):
    """Reproducible floats with a planted effect of "clip"."""
    rng = random.Random(f"{config['task']}/{config['seed']}")
    value = EFFECT.get(config["method"]["name"], 0.6) + rng.gauss(0, 0.05)
    name = config["method"]["name"]
    return {
        "status": "ok",
        "metric": "accuracy",
        "mode": "max",
        "baseline": 0.25,
        "success_threshold": 0.6,
        "score": value,
        "curve": {
            "epoch": [1, 2, 3],
            "loss": [rng.random() for _ in range(3)],
            "validation": [rng.random() for _ in range(3)],
        },
        "files": {"train/events": f"{name} {value!r}".encode(), "note.txt": b"x"},
    }


def sleepy(config):
    time.sleep(float(os.environ.get("KBPTT_TEST_SLEEP", "0.2")))
    return score(config)


def crashing(config):
    if config["method"]["name"] == "clip":
        raise ZeroDivisionError("by design")
    return score(config)


def stopping(config):
    """Ends as if someone had pressed Ctrl-C, or with `sys.exit`, or in a way of its own."""

    class Stop(BaseException):
        pass

    if config["method"]["name"] == "clip":
        raise (KeyboardInterrupt(), SystemExit("by design"), Stop())[config["seed"]]
    return score(config)


def crashing_once(config):
    """Fails the first time that each trial runs."""
    if first_time(config):
        raise RuntimeError("once")
    return score(config)


def killed_once(config):
    """Takes its process down the first time that one of the trials runs."""
    if config["method"]["name"] == "clip" and config["seed"] == 0 and first_time(config):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return score(config)


def held_once(config):
    """Names its worker, and stays there until that is killed, the first time that it is run."""
    if config["method"]["name"] == "clip" and config["seed"] == 0 and first_time(config):
        marker = pathlib.Path(os.environ["KBPTT_TEST_MARKERS"], "process")
        marker.with_suffix(".new").write_text(str(os.getppid()))
        marker.with_suffix(".new").rename(marker)
        time.sleep(300)
    return score(config)


def killing(config):
    if config["method"]["name"] == "clip" and config["seed"] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return score(config)


def hanging(config):
    """Stuck in C code that holds Python's lock, with every signal blocked that can be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).pause()


def stopped(config):
    os.kill(os.getpid(), signal.SIGSTOP)


def leaving(config):
    """Ends its process with an exit code, while one that it started holds its pipes."""
    if os.fork() == 0:
        pathlib.Path(os.environ["KBPTT_TEST_MARKERS"], "left").write_text(str(os.getpid()))
        time.sleep(300)
    while not pathlib.Path(os.environ["KBPTT_TEST_MARKERS"], "left").exists():
        time.sleep(0.01)
    os._exit(3)


def greedy(config):
    memory = [bytearray(os.urandom(2**20) * 300)]
    time.sleep(300)
    return memory


def killed(config):
    os.kill(os.getpid(), signal.SIGKILL)


def misbehaving(config):
    """Every way to go wrong, one for each seed; the last one is sound."""
    ways = (hanging, stopped, leaving, greedy, killed, score)
    return ways[config["seed"]](config)


def noisy(config):
    """Prints, also past Python, where answers are expected."""
    print("printed")
    os.write(1, b"written\n")
    return score(config)


def diverging(config):
    result = score(config)
    if config["method"]["name"] == "baseline" and config["seed"] % 2:
        result |= {"status": "diverged", "score": None}
    return result


def process(config):
    return score(config) | {"process": os.getpid()}


def foreign_error(config):
    import xmlrpc.client  # which nothing else imports

    raise xmlrpc.client.Fault(1, "by design")


def without_room(config):
    if os.environ["KBPTT_TEST_FULL"]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return score(config)


def unstorable(config):
    return {"status": "ok", "score": object()}


def escaping(config):
    return score(config) | {"files": {"../../escaped": b""}}


def first_time(config):
    marker = pathlib.Path(os.environ["KBPTT_TEST_MARKERS"])
    name = f"{config['method']['name']}-{config['task']['name']}-{config['seed']}"
    try:
        (marker / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def validated(config):
    """Scores with a best learning rate: 0.001 for all methods but "clip", which has 0.005."""
    best = 0.005 if config["method"]["name"] == "clip" else 0.001
    rng = random.Random(f"{config['method']['name']}/{config['seed']}")
    found = score(config)
    gain = 0.3 if config["method"]["name"] == "clip" else 0.0
    far = abs(math.log10(config["optimizer"]["learning_rate"] / best))
    value = 0.6 + gain - 0.1 * far + rng.gauss(0, 0.001)
    return found | {"score": 1 - value, "validation_score": value}  # the test data say the opposite


def validated_slowly(config):
    time.sleep(float(os.environ.get("KBPTT_TEST_SLEEP", "0.1")))
    return validated(config)


def fragile(config):
    """Crashes at learning rates above 0.003, diverges below 0.0003."""
    rate = config["optimizer"]["learning_rate"]
    if rate > 0.003:
        raise ZeroDivisionError("by design")
    return validated(config) | ({"status": "diverged", "score": None} if rate < 0.0003 else {})


def crashing_search(config):
    if config.get("stage") == "tuning" and config["method"]["name"] == "clip":
        raise ZeroDivisionError("by design")
    return validated(config)


def unvalidated(config):
    return {"status": "ok", "metric": "accuracy", "mode": "max", "score": 0.5}

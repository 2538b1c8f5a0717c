"""A row that needs no library: one candidate takes memory, one is killed, one crashes, one fails."""

import os
import signal
import time

CANDIDATES = ("small", "large", "killed")


def candidates(mib=0, fail=False):
    def take(share):
        time.sleep(0.001 * share)
        if fail:
            raise ValueError("no such thing")
        return [len(bytearray(os.urandom(1 << 20) * int(mib * share)))]

    return {
        "small": lambda: take(1),
        "large": lambda: take(4),
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "crashed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    }

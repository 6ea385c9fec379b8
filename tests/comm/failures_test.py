"""A rank that dies or stalls in each kind of collective: every other rank ends in time with a line that names rank and collective.

usage: failures_test.py mpi | tcp | thread exit | kill | stall      (PROGRAM in the environment)
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time

PROGRAM = os.environ["PROGRAM"]
RANKS = 4
TIMEOUT_S = 1.5
LIMIT_S = 8.0  # for starting four processes on a busy machine, the time-out and the end of the job
COLLECTIVES = ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send", "receive", "send_receive",
               "barrier", "split"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more):
    return dict(os.environ, VITRAIL_COMM_TIMEOUT_S=str(TIMEOUT_S), OMPI_MCA_btl_base_warn_component_unused="0", **more)


def run_mpi(collective, how):
    command = [shutil.which("mpirun"), "--allow-run-as-root", "--oversubscribe", "-n", str(RANKS), PROGRAM, collective, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    return done.stdout + done.stderr, [done.returncode]


def run_tcp(collective, how):
    port = free_port()
    ranks = [subprocess.Popen([PROGRAM, collective, how], stderr=subprocess.PIPE, text=True,
                              env=environment(RANK=str(r), WORLD_SIZE=str(RANKS), LOCAL_RANK=str(r),
                                              LOCAL_WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)))
             for r in range(RANKS)]
    texts = [rank.communicate(timeout=60)[1] for rank in ranks[:-1]]
    ranks[-1].kill()  # the one that stalls
    ranks[-1].communicate()
    return "".join(texts), [rank.returncode for rank in ranks[:-1]]


def run_thread(collective, how):
    done = subprocess.run([PROGRAM, collective, how, "thread"], capture_output=True, text=True, timeout=60, env=environment())
    return done.stderr, [done.returncode]


def names(collective, line):
    """The line is about the collective, or about the one that follows for ranks that it does not concern."""
    words = {"send_receive": "(send|receive|barrier)", "send": "(send|barrier)", "receive": "(receive|barrier)"}
    return re.search(rf"in {words.get(collective, collective)} #", line)


def main():
    backend, how = sys.argv[1:3]
    problems, slowest = [], 0.0
    for collective in COLLECTIVES:
        start = time.time()
        text, codes = {"mpi": run_mpi, "tcp": run_tcp, "thread": run_thread}[backend](collective, how)
        seconds = time.time() - start
        slowest = max(slowest, seconds)
        wrong = [] if seconds < LIMIT_S else [f"took {seconds:.1f} s"]
        expected = {5, 3, 137} if backend == "mpi" else {5}  # mpirun gives the code of the rank that died first
        if not set(codes) <= expected:
            wrong.append(f"exit codes {codes}")
        for rank in range(RANKS - 1):
            lines = [line for line in text.splitlines() if line.startswith(f"[rank {rank}]")]
            if len(lines) != 1:
                wrong.append(f"rank {rank} printed {len(lines)} lines")
            elif not names(collective, lines[0]) or not re.search(rf"rank [0-9, ]*\b{RANKS - 1}\b", lines[0]):
                wrong.append(f"rank {rank} does not name the rank or the collective")
        print(f"{backend} {how} {collective}: {seconds:.1f} s, {'; '.join(wrong) or 'ok'}")
        if wrong:
            problems.append(collective)
            print(text)
    print(f"slowest {slowest:.1f} s of {LIMIT_S:.0f} s")
    sys.exit(f"failed: {', '.join(problems)}" if problems else 0)


main()

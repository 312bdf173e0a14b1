"""What is done to the chain: each fault by its name, a function of the place for it and of the undisturbed chain."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading

from support import chain_limits
from support.chain import EXPORT, ROOT, SMALL, SMALL_DATA, STAGES, STM, Chain

FAULTS = {}


def fault(act):
    FAULTS[act.__name__] = act
    return act


def same(chain, calm, stages=STAGES, more=()):
    """Run a chain's stages, and assert that it is as the undisturbed one and leaves nothing."""
    assert chain.whole(stages) == calm.truth(stages)
    chain.check_left(more)
    return "as if nothing had been"


def strike(calm, place, stage, how, rounds):
    """Send ``how`` at a random moment of a stage, ``rounds`` times, and run it again."""
    chain, draw, struck, begun = Chain.before_stage(stage, calm, place), random.Random(f"{stage} {how}"), 0, None
    longest = calm.found["seconds"][stage]
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a job behind a shell, which children would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
    while struck < rounds:
        process = chain.start(chain.command(stage))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(longest * draw.uniform(0.5 if how == signal.SIGINT else 0.1, 0.9))
        if process.poll() is None:
            os.killpg(process.pid, how)
        _, err = process.communicate(timeout=120)
        assert process.returncode in (0, {signal.SIGKILL: -9, signal.SIGINT: 130}[how]), (process.returncode, err)
        assert "Traceback" not in err, err
        if process.returncode == 0:  # over too soon
            assert longest > 1, "never there"
            shutil.rmtree(place)
            chain, longest = Chain.before_stage(stage, calm, place), longest / 2
            continue
        struck += 1
        begun = re.search(r"continue with --resume (\w+)", err)
    if begun and (chain.here / "checkpoints" / f"{begun[1]}.pt").exists():
        chain.go(stage, resume=begun[1])
    return f"{struck} times; {same(chain, calm, (stage,))}"


def disk_full(calm, place, stage):
    """Leave a stage less and less room, then give it enough."""
    with chain_limits.mounted(place / "small", "size=64m"):
        chain = Chain.before_stage(stage, calm, place, "small")
        said = []
        for room in (0, 20_000, 200_000):
            with chain_limits.filled(chain.here, room):
                code, _, err = chain.ask(chain.command(stage))
            assert code in (0, 2), (code, err)
            if code:
                (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
                assert re.search("no space|is full|No space left", line), line
                said.append(line)
        waiting = chain.here / ".stm-spool"
        if spooled := waiting.exists():  # recorded beside a store that took nothing
            assert chain.ask(("sync",))[0] == 0
            assert not waiting.exists() or not list(waiting.iterdir()), "not everything was sent"
            shutil.rmtree(waiting, ignore_errors=True)
        assert said or spooled, "there was room enough"
        return f"refused {len(said)} times{', or the run waits for stm sync' * spooled}; {same(chain, calm, (stage,))}"


for _stage in STAGES:
    FAULTS[f"kill_{_stage}"] = lambda place, calm, stage=_stage: strike(calm, place, stage, signal.SIGKILL, 3)
    FAULTS[f"interrupt_{_stage}"] = lambda place, calm, stage=_stage: strike(calm, place, stage, signal.SIGINT, 1)
    FAULTS[f"disk_full_{_stage}"] = lambda place, calm, stage=_stage: disk_full(calm, place, stage)


@fault
def clock_jumps(place, calm):
    """The clock jumps to and fro, by up to a year, twice a second."""
    now, draw, over = place / "now", random.Random(0), threading.Event()
    now.write_text("+0d")
    chain = Chain(place, variables=chain_limits.clock(now))

    def jump():
        while not over.wait(0.5):
            now.write_text(f"{draw.randint(-365, 365):+d}d")

    thread = threading.Thread(target=jump)
    thread.start()
    try:
        return same(chain, calm)
    finally:
        over.set()
        thread.join()


@fault
def packages_read_only(place, calm):
    """As in a container: neither the packages nor HOME can be written."""
    chain = Chain(place)
    chain.before = chain_limits.read_only(place / "home", ROOT)
    return same(chain, calm)


@fault
def bare(place, calm):
    """No HOME, no UTF-8, a TMPDIR that is not there; where a name cannot be written without UTF-8, that is told."""
    plain = {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    named = Chain(place, "größe ☃", variables={**plain, "HOME": None, "TMPDIR": place / "none"})
    named.go("simulate")
    named.refused(named.command("train"), "PYTHONUTF8=1")
    return same(Chain(place, variables=named.variables), calm)


@fault
def strange(place, calm):
    """A HOME that does not exist, Turkish, umask 077, and files of the data set from 1980 and from 2100."""
    turkish = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "HOME": place / "nobody"}
    chain = Chain(place, variables=turkish, umask=0o077)
    chain.go("simulate")
    for number, path in enumerate(sorted(chain.here.rglob("*"))):
        os.utime(path, (315_532_800, 315_532_800) if number % 2 else (4_102_444_800, 4_102_444_800))
    assert chain.go("simulate")["digest"] == calm.found["simulate"]["digest"]
    said = same(chain, calm)
    open_ones = [str(path) for path in chain.here.rglob("*") if path.stat().st_mode & 0o077]
    assert not open_ones, open_ones[:5]
    made = [str(path) for path in place.glob("nobody/**/*") if "matplotlib" not in str(path) and path.is_file()]
    assert not made, made
    return said


@fault
def odd_folder(place, calm):
    """Quotes, spaces, a leading dash and what means something in addresses and patterns."""
    return same(Chain(place, "-a 'b' \"c\" #d %41 [e] {f} ; ü?&=$HOME"), calm)


@fault
def temporary_full(place, calm):
    with chain_limits.mounted(place / "tmp", "size=1m"):
        chain = Chain(place)
        with chain_limits.filled(place / "tmp", 0):
            for stage in STAGES:
                code, out, err = chain.ask(chain.command(stage))
                assert code in (0, 2), (code, err)
                if code == 2:
                    assert "space" in err, err
                    break
                chain.found[stage] = json.loads(out)
        return f"{'refused at ' + stage if code else 'not needed'}; {same(chain, calm, more=('ballast',))}"


@fault
def no_network(place, calm):
    """No network but the own machine, and nothing asks for one."""
    log = place / "calls"
    chain = Chain(place, before=chain_limits.offline(log))
    said = same(chain, calm)
    return f"{said}; calls to elsewhere: {chain_limits.elsewhere(log)}"


@fault
def folder_read_only(place, calm):
    """Every command that writes refuses a folder that cannot be written."""
    chain = Chain.before_stage("predict", calm, place)
    run = chain.found["train"]["run_id"]
    chain.before = chain_limits.read_only(chain.here)
    lines = [
        chain.refused(("simulate", "hubbard", *SMALL_DATA, "--workers", "1", "--out", "other.zarr"), "write"),
        chain.refused(chain.command("train"), "write"),
        chain.refused(("export", run, "--out", "other.onnx", *EXPORT), "write"),
        chain.refused(chain.command("evaluate"), "write"),
        chain.refused(("predict", "model.onnx", "data.zarr", "--out", "other"), "other"),
        chain.refused(("demo", *SMALL), "demo-output"),
    ]
    assert chain.ask(("predict", "model.onnx", "data.zarr", "--json"))[0] == 0
    chain.before = ()
    same(chain, calm)
    return f"{len(lines)} commands refuse; one that writes nothing works"


@fault
def streams_closed(place, calm):
    """No stdin, a reader that leaves after a line, and no stdout at all."""
    chain = Chain(place)
    shell = ("sh", "-c")
    for line in ("{} --help | head -1", "{} models | head -1", "{} doctor | head -1", "{} train --help | head -1"):
        done = subprocess.run(
            [*shell, line.format(" ".join(STM))], cwd=chain.here, env=chain.environment(), capture_output=True,
            text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert not re.search("Traceback|Exception ignored|BrokenPipe", done.stderr), done.stderr
        assert len(done.stdout.splitlines()) == 1
    chain.before = (*shell, 'exec "$@" <&-', "sh")
    said = same(chain, calm)
    chain.before = (*shell, 'exec "$@" >&-', "sh")
    code, _, err = chain.ask(chain.command("predict"))
    assert code in (0, 1, 2), (code, err)
    return said


@fault
def two_demos(place, calm):
    """Two demos begin in one folder at once."""
    chain = Chain(place)
    less = f"{SMALL[-1]};train.epochs=5;tune.epochs=3;evaluate.states=6"
    small = ("demo", *SMALL[:-1], less, "--workers", "1", "--json")
    both = [chain.start(small) for _ in range(2)]
    ends = []
    for process in both:
        out, err = process.communicate(timeout=1200)
        assert "Traceback" not in err, err
        ends.append((process.returncode, out, err))
    assert 0 in [code for code, *_ in ends], ends
    for code, _, err in ends:
        assert code in (0, 2), err
    results = [json.loads(out) for code, out, _ in ends if code == 0]
    assert len({one["digest"] for one in results}) == 1
    again = chain.ask(small)
    assert again[0] == 0, again[2]
    assert "RUNNING" not in chain.states()
    kinds = {repr({name: one["metrics"][name] for name in ("mae", "unseen_mae")}) for one in results}
    refused = [err.strip().splitlines()[-1][:160] for code, _, err in ends if code == 2]
    return f"{len(results)} of 2 finished ({len(kinds)} kinds of metrics); {refused or 'none refused'}"


@fault
def memory_1_gib(place, calm):
    """Every stage is held to 1 GiB; how much each takes, and which cannot do with that."""
    chain, used = Chain(place), {}
    for stage in STAGES:
        code, out, err, peak = chain_limits.measured(chain, stage, 2**30)
        used[stage] = f"{peak / 2**20:.0f} MiB"
        if code == -signal.SIGKILL and stage not in ("simulate", "predict"):
            code, out, err, peak = chain_limits.measured(chain, stage)
            used[stage] = f"{peak / 2**20:.0f} MiB, more than it may"
        assert code == 0, (stage, code, err)
        chain.found[stage] = json.loads(out)
    return f"{used}; {same(chain, calm)}"

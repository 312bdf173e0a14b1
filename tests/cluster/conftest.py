"""A real SLURM of one node, in a temporary folder: munge, the controller and one slurmd, no accounting."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel")
CONF = """
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Start SLURM, point SLURM_CONF at it, and stop it at the end."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("needs root, to start slurmd")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    controller, node = _free_ports(2)
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(host=host, folder=folder, controller=controller, node=node, cpus=max(2, os.cpu_count() or 1))
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    started = []

    def start(*command):
        log = (folder / f"{command[0]}.out").open("w")
        started.append(
            subprocess.Popen(
                command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        )
        log.close()

    environment = {**os.environ, "SLURM_CONF": str(conf)}
    start(
        "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
    )  # fmt: skip
    _wait_for(lambda: (folder / "munge.socket").exists(), folder, started)
    start("slurmctld", "-D", "-i", "-f", str(conf))
    start("slurmd", "-D", "-N", host, "-f", str(conf))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(conf)
    try:
        _wait_for(lambda: _idle(), folder, started)
        yield folder
    finally:
        subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=20, check=False)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _idle():
    done = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "idle"


def _wait_for(condition, folder, started, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        dead = [process.args[0] for process in started if process.poll() is not None]
        if dead or time.monotonic() > end:
            logs = "\n".join(f"{path}:\n{path.read_text()[-1500:]}" for path in sorted(folder.glob("*.[lo][ou][gt]")))
            pytest.fail(f"SLURM did not start (ended: {dead})\n{logs}")
        time.sleep(0.1)

"""The options of a server on a command line, whatever names its models."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from stm_models.errors import InputError
from stm_models.machine import cores

if TYPE_CHECKING:
    from deploy.serving.plan import Plan

__all__ = ["options", "plan_from"]

_LONGEST = 1e6  # seconds between two looks at an alias
_LARGEST_MB = 1e6


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--name", help="name in the address of the only model (default: the registered name, or stm-TASK)")
    add("--host", default="127.0.0.1", help="another than a loopback address needs a token and TLS")
    add("--port", type=int, default=8080, help="0 picks a free one (default: %(default)s)")
    add("--examples", metavar="DIR", help="folder of files that the page offers to try")
    add("--poll-seconds", type=float, default=10.0, metavar="S",
        help="between two looks at what an alias names; 0 for never (default: %(default)g)")  # fmt: skip
    run = parser.add_argument_group("how models are run")
    add = run.add_argument
    add("--provider", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    add("--allow-cpu", action="store_true", help="with --provider cuda: the CPU where CUDA does not load")
    add("--tf32", action="store_true", help="on CUDA: products with ten bits of mantissa, faster and coarser")
    add("--threads", type=int, help="threads of one run (default: 1; several requests run at once)")
    add("--runs", type=int, default=0, metavar="N",
        help="runs at once in one worker (default: the cores, shared between the workers)")  # fmt: skip
    add("--workers", type=int, default=1, metavar="N", help="processes that share the port (default: %(default)s)")
    add("--batch-rows", type=int, metavar="N",
        help="images of several requests run together at most (default: 1 on the CPU, 32 on CUDA)")  # fmt: skip
    add("--batch-delay-ms", type=float, default=2.0, metavar="MS",
        help="how long the first of them waits (default: %(default)g)")  # fmt: skip
    guard = parser.add_argument_group("who may ask, and how much")
    add = guard.add_argument
    add("--token-file", metavar="F", help="file with the bearer token that requests must carry")
    add("--tls-cert", metavar="F", help="PEM file with the certificate chain: speak HTTPS")
    add("--tls-key", metavar="F", help="PEM file with its private key")
    add("--insecure", action="store_true", help="go without token or TLS on an address that others reach")
    add("--allow-host", action="append", default=[], metavar="NAME",
        help="further name that the Host header may have, on any port")  # fmt: skip
    add("--rate", type=float, default=0.0, metavar="R", help="requests per second of one client (default: no limit)")
    add("--max-rows", type=int, default=256, metavar="N", help="images in one request (default: %(default)s)")
    add("--max-body-mb", type=float, default=64.0, metavar="MB", help="size of one request (default: %(default)g)")
    add("--queue-rows", type=int, default=2048, metavar="N",
        help="images that may wait; the next request gets 503 (default: %(default)s)")  # fmt: skip
    add("--timeout", type=float, default=60.0, metavar="S", help="for one answer (default: %(default)g)")
    add("--body-timeout", type=float, default=20.0, metavar="S", help="for a request to arrive (default: %(default)g)")


def plan_from(arguments: argparse.Namespace) -> Plan:
    """Return the settings that the options say.

    Raises
    ------
    InputError
        Naming the option that does not fit.
    """
    from deploy.model.provider import Runtime
    from deploy.serving.access import Access
    from deploy.serving.compute import Schedule
    from deploy.serving.limits import Limits
    from deploy.serving.listening import Tls
    from deploy.serving.plan import Plan
    from deploy.serving.tokens import read_token

    given = arguments
    if given.workers < 1:
        raise InputError(f"--workers is {given.workers}, expected at least 1")
    if (given.tls_cert is None) != (given.tls_key is None):
        raise InputError("--tls-cert and --tls-key belong together: give both")
    if "" in (given.tls_cert, given.tls_key):
        empty = "--tls-key" if given.tls_cert else "--tls-cert"
        raise InputError(f"{empty} is '': expected the name of a PEM file; leave both out to go without TLS")
    if not 0 <= given.poll_seconds <= _LONGEST:
        raise InputError(f"--poll-seconds is {given.poll_seconds:g}, expected 0 (never) to {_LONGEST:g}")
    if not 0 < given.max_body_mb <= _LARGEST_MB:
        raise InputError(f"--max-body-mb is {given.max_body_mb:g}, expected more than 0, at most {_LARGEST_MB:g}")
    token = read_token(given.token_file) if given.token_file is not None else None
    tls = Tls(given.tls_cert, given.tls_key) if given.tls_cert else None
    body_bytes = int(given.max_body_mb * 2**20)
    return Plan(
        access=Access(given.host, given.port, token, tls, given.insecure, tuple(given.allow_host)),
        limits=Limits(
            body_bytes=body_bytes,
            total_bytes=max(Limits.total_bytes, 2 * body_bytes),
            rows=given.max_rows,
            queue_rows=given.queue_rows,
            request_seconds=given.timeout,
            body_seconds=given.body_timeout,
            rate=given.rate,
        ),
        schedule=Schedule(
            runs=given.runs or max(1, cores() // given.workers),
            batch_rows=given.batch_rows,
            batch_seconds=given.batch_delay_ms / 1e3,
        ),
        runtime=Runtime(given.provider, 1 if given.threads is None else given.threads, given.allow_cpu, given.tf32),
        examples=given.examples,
        poll_seconds=given.poll_seconds,
        workers=given.workers,
    )

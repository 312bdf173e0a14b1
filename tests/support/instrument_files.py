"""Instrument files made to order, after what real ones look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SCAN_HEAD = """:NANONIS_VERSION:
2
:SCANIT_TYPE:
              FLOAT            MSBFIRST
:SCAN_PIXELS:
       {columns}       {rows}
:SCAN_RANGE:
           {width:.6E}           {height:.6E}
:SCAN_ANGLE:
            3.000E+1
:SCAN_DIR:
{direction}
:BIAS:
            -2.000E-1
:COMMENT:
two lines
of words
:Z-Controller>Setpoint:
500E-12
:Z-Controller>Setpoint unit:
A
:DATA_INFO:
\tChannel\tName\tUnit\tDirection\tCalibration\tOffset
{channels}

:SCANIT_END:


"""


def grid(path: Path, signals: dict, *, bias=None, segments="", size_nm=(3.0, 4.0), edit=None, cut=0) -> Path:
    """Write signals (y, x, bias) as a ``.3ds`` file; ``edit`` changes its header's text."""
    rows, columns, points = next(iter(signals.values())).shape
    ends = (0.0, 0.0) if bias is None else (bias[0], bias[-1])
    table = f"Segment Start (V), Segment End (V), Settling (s), Integration (s), Steps (xn)={segments}\r\n"
    head = (
        f'Grid dim="{columns} x {rows}"\r\n'
        f"Grid settings=1.0E-8;-2.0E-9;{size_nm[1] * 1e-9:.6E};{size_nm[0] * 1e-9:.6E};4.500000E+1\r\n"
        f'{"Filetype=MLS" if segments else "Filetype=Linear"}\r\nSweep Signal="Bias (V)"\r\n'
        'Fixed parameters="Sweep Start;Sweep End"\r\nExperiment parameters="X (m);Y (m);Z (m)"\r\n'
        f"# Parameters (4 byte)=5\r\n{table if segments else ''}"
        f"Experiment size (bytes)={4 * points * len(signals)}\r\nPoints={points}\r\n"
        f'Channels="{";".join(signals)}"\r\nZ-Controller>Setpoint=100E-12\r\nLock-in>Amplitude=5E-3\r\n'
        'Comment="two lines:\r\nPoints=7"\r\n:HEADER_END:\r\n'
    )
    head = edit(head) if edit else head
    parameters = np.broadcast_to(np.array([*ends, 0, 0, 1e-9], ">f4"), (rows, columns, 5))
    data = np.concatenate([parameters, *(np.asarray(one, ">f4") for one in signals.values())], axis=2)
    content = head.encode() + data.astype(">f4").tobytes()
    path.write_bytes(content[: len(content) - cut])
    return path


def scan(path: Path, images: list, channels: list, *, direction="up", size_nm=(3.0, 4.0)) -> Path:
    """Write images, rows in the order of scanning, as a ``.sxm`` file; ``channels``: (name, unit, direction)."""
    rows, columns = images[0].shape
    table = "\n".join(f"\t{i}\t{name}\t{unit}\t{way}\t1\t0" for i, (name, unit, way) in enumerate(channels))
    head = SCAN_HEAD.format(
        columns=columns, rows=rows, width=size_nm[1] * 1e-9, height=size_nm[0] * 1e-9, direction=direction,
        channels=table,
    )  # fmt: skip
    data = np.stack(images).astype(">f4").tobytes()
    path.write_bytes(head.encode() + b"\x1a\x04" + data)
    return path


def spectrum(path: Path, columns: dict) -> Path:
    """Write columns as a Nanonis ``.dat`` file."""
    head = "Experiment\tbias spectroscopy\t\r\nX (m)\t1E-9\t\r\nZ-Controller>Setpoint\t25E-12\t\r\n\r\n[DATA]\r\n"
    rows = "\r\n".join("\t".join(f"{value:.7E}" for value in row) for row in zip(*columns.values(), strict=True))
    path.write_bytes((head + "\t".join(columns) + "\r\n" + rows + "\r\n").encode())
    return path

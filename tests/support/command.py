"""`mediqa-node` on the command line, a process each time; what it imports is imported once.

Commands import torch and SQLAlchemy for longer than most of them work. A fork server imports them once
and every command is a fork of that: its own memory, folder and streams, as from a shell.
"""

import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import structlog

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "support",
        "mediqa_node.cli.tools",
        "mediqa_node.doctor",
        "mediqa_node.model.predict",
        "mediqa_node.model.prompt_classifier",
        "mediqa_node.pipeline.checks.constancy",
        "mediqa_node.pipeline.durable",
        "mediqa_node.pipeline.export.nightly",
        "mediqa_node.pipeline.offline",
        "mediqa_node.service",
        "mediqa_node.storage.migrate",
    ]
)


def run(*arguments: object, folder: Path, timeout_s: float = 600.0) -> subprocess.CompletedProcess[str]:
    """Run `mediqa-node ARGUMENTS` in `folder`."""
    command = ["mediqa-node", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept) / "out", Path(kept) / "err"
        process = _SERVER.Process(target=_main, args=(command, folder, out, err))
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout_s)
        assert process.exitcode is not None
        return subprocess.CompletedProcess(command, process.exitcode, out.read_text(), err.read_text())


def run_in(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `mediqa-node -c FOLDER/node.yaml ARGUMENTS` in `folder`."""
    return run("-c", folder / "node.yaml", *arguments, folder=folder)


def invoke_in(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `mediqa-node -c FOLDER/node.yaml ARGUMENTS` in `folder`, but in this process."""
    return invoke("-c", folder / "node.yaml", *arguments, folder=folder)


def invoke(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `mediqa-node` in this process, where code and weights are warm: for what a command says, again and again."""
    from mediqa_node.cli import main

    command = ["mediqa-node", *map(str, arguments)]
    logging, before, status = structlog.get_config(), sys.argv, 0
    out, err = io.StringIO(), io.StringIO()
    try:
        sys.argv = command
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv = before
        structlog.configure(**logging)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def _main(command: list[str], folder: Path, out: Path, err: Path) -> None:
    os.chdir(folder)
    sys.argv = command
    for stream, path, number in ((sys.stdout, out, 1), (sys.stderr, err, 2)):
        _turn(stream, path, number)
    from mediqa_node.cli import main

    main()


def _turn(stream: IO[str], path: Path, number: int) -> None:
    stream.flush()
    opened = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(opened, number)
    os.close(opened)

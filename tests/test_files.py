"""A file is written whole or not at all, whatever stops the writer."""

import signal
import subprocess
import sys

import pytest

from sparseprune.files import write_whole


class Interrupted(BaseException):
    """Not an Exception, as Ctrl-C is none."""


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new folder" / "file"
    write_whole(path, lambda stream: stream.write(b"old"))

    def fail(stream) -> None:
        stream.write(b"half")
        raise Interrupted

    with pytest.raises(Interrupted):
        write_whole(path, fail)
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]
    write_whole(path, lambda stream: stream.write(b"new"))
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]


def test_writers_with_equal_pids_do_not_meet(tmp_path, monkeypatch):
    """Those in containers, say, on one network disk."""
    monkeypatch.setattr("os.getpid", lambda: 7)
    path = tmp_path / "file"

    def write(stream) -> None:
        stream.write(b"first")
        write_whole(path, lambda other: other.write(b"second"))
        assert path.read_bytes() == b"second"

    write_whole(path, write)
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = """
import os, signal, sys
from pathlib import Path
from sparseprune.files import write_whole
write_whole(Path(sys.argv[1]), lambda s: (s.write(b"half"), s.flush(), os.kill(os.getpid(), signal.SIGKILL)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL and path.read_bytes() == b"old"
    write_whole(path, lambda stream: stream.write(b"new"))
    assert path.read_bytes() == b"new"

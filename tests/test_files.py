"""Files are written whole or not at all, also by processes that are killed or run at once."""

import json
import multiprocessing
import os
import signal
import stat
import threading
import time

import pytest

from fmi import files
from fmi.errors import InputError


@pytest.fixture(autouse=True)
def another_process():
    """Forget which folders this process has swept."""
    files.sweep.cache_clear()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fails(beside):
        beside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="x.txt cannot be written: No space left"):
        files.write_whole(path, fails)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]

    def refuses(beside):
        raise InputError("the picture is empty")

    with pytest.raises(InputError, match="^the picture is empty"):
        files.write_whole(path, refuses)
    for name in ("a\0b", "x" * 300):
        with pytest.raises(InputError, match="cannot be written"):
            files.write_whole(tmp_path / name, lambda beside: beside.write_text("new"))
    assert names(tmp_path) == ["x.txt"]


def test_files_have_the_permissions_of_the_umask(tmp_path):
    files.write_whole(tmp_path / "file", lambda beside: beside.write_text("new"))
    files.write_folder(tmp_path / "folder", lambda beside: (beside / "x").write_text("new"))
    plain = tmp_path / "plain"
    plain.touch()
    wanted = stat.S_IMODE(plain.stat().st_mode)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == wanted
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == wanted | (wanted >> 2 & 0o111)


def test_a_folder_is_complete_or_absent_and_the_first_one_stays(tmp_path):
    def fill(text):
        return lambda beside: (beside / "x").write_text(text)

    files.write_folder(tmp_path / "a/b", fill("first"))
    files.write_folder(tmp_path / "a/b", fill("second"))
    assert (tmp_path / "a/b/x").read_text() == "first"
    assert names(tmp_path / "a") == ["b"]
    with pytest.raises(InputError, match="c cannot be written"):
        files.write_folder(tmp_path / "a/c", lambda beside: (beside / "no/x").write_text(""))
    assert names(tmp_path / "a") == ["b"]


def _hangs(folder, ready):
    def write(beside):
        (beside / "x" if beside.is_dir() else beside).write_text("half")
        ready.set()
        time.sleep(600)

    write_it = files.write_folder if folder.name == "folders" else files.write_whole
    write_it(folder / "result", write)


@pytest.mark.parametrize("kind", ["files", "folders"])
def test_what_a_killed_process_left_is_removed_but_not_what_a_living_one_writes(tmp_path, kind):
    folder = tmp_path / kind
    context = multiprocessing.get_context("fork")
    left = []
    processes = []
    for _ in range(2):
        ready = context.Event()
        process = context.Process(target=_hangs, args=(folder, ready))
        process.start()
        assert ready.wait(60)
        processes.append(process)
        left.append(set(names(folder)) - set().union(*left))
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].join()
    assert len(names(folder)) == 2
    files.write_whole(folder / "other", lambda beside: beside.write_text("new"))
    assert set(names(folder)) == {"other"} | left[1]
    os.kill(processes[1].pid, signal.SIGKILL)
    processes[1].join()


def test_one_thread_of_all_processes_holds_a_lock(tmp_path):
    path = tmp_path / "lock"
    held, most = [], []

    def work():
        for _ in range(20):
            with files.locked(path, wait=True) as mine:
                assert mine
                held.append(1)
                most.append(len(held))
                time.sleep(0.0005)
                held.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert not path.exists()
    with files.locked(path, wait=True), files.locked(path, wait=False) as second:
        assert not second
    with files.locked(path, wait=False) as again:
        assert again


def test_json_is_strict(tmp_path):
    for wrong in (float("nan"), float("-inf"), object(), {1, 2}):
        with pytest.raises(InputError, match="JSON"):
            files.save_json(tmp_path / "x.json", {"value": wrong})
    assert names(tmp_path) == []
    files.save_json(tmp_path / "x.json", {"name": "\udcff ö", "values": [1.5, None]})
    assert json.loads((tmp_path / "x.json").read_text("ascii")) == {
        "name": "\udcff ö",
        "values": [1.5, None],
    }

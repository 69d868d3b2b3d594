"""Files that are ours are made by us alone; what somebody else has put there first is never opened."""

import errno
import os
import stat
from pathlib import Path

import pytest

from engine.files import explains_itself, make_private_folder, private, refuse_foreign, refuse_foreign_link, regular


def written_by(opener, path, mode):
    with open(path, mode, opener=opener) as file:
        file.write(b"x")


def a_link(path):
    (path.parent / "other").write_bytes(b"theirs")
    path.symlink_to("other")


def a_dangling_link(path):
    path.symlink_to("nowhere")


def a_second_name(path):
    (path.parent / "other").write_bytes(b"theirs")
    path.hardlink_to(path.parent / "other")


def open_to_all(path):
    path.touch()
    path.chmod(0o666)


def a_device(path):
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make devices")


def foreign(path):
    path.touch()
    try:
        os.chown(path, 65534, 65534)
    except PermissionError:
        pytest.skip("only root may give files away")


PLANTED = {
    "a pipe": (os.mkfifo, "no regular file"),
    "a folder": (Path.mkdir, "no regular file"),
    "a device": (a_device, "no regular file"),
    "a link": (a_link, "a symbolic link"),
    "a link to nowhere": (a_dangling_link, "a symbolic link"),
    "a second name": (a_second_name, r"second name .*: cp -p \S+/file \S+/file\.copy && mv \S+/file\.copy \S+/file"),
    "somebody else's file": (foreign, "belongs to user 65534: run as that user"),
    "a file that everybody may write": (open_to_all, "chmod o-w"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_put_there_first_is_not_opened(tmp_path, kind):
    plant, words = PLANTED[kind]
    plant(tmp_path / "file")
    with pytest.raises(OSError, match=words) as refusal:
        written_by(private, tmp_path / "file", "ab")
    assert "remove" not in str(refusal.value)
    assert explains_itself(refusal.value)
    with pytest.raises(FileExistsError):
        written_by(private, tmp_path / "file", "xb")
    if (tmp_path / "other").exists():
        assert (tmp_path / "other").read_bytes() == b"theirs"


def test_what_the_system_refuses_does_not_explain_itself():
    assert not explains_itself(PermissionError(errno.EPERM, os.strerror(errno.EPERM), "file"))
    assert not explains_itself(PermissionError("x"))


def test_a_file_is_made_for_its_owner_only_and_opened_again(tmp_path):
    before = os.umask(0)
    try:
        for _ in range(2):
            written_by(private, tmp_path / "file", "ab")
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"xx"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_what_is_only_opened_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        os.close(private(tmp_path / "file", os.O_RDONLY))
    with pytest.raises(FileNotFoundError):
        refuse_foreign(tmp_path / "file")


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o700, True), (0o1777, True), (0o770, True), (0o777, False), (0o702, False)]
)
def test_a_folder_that_everybody_may_write_is_refused_unless_it_is_sticky(tmp_path, mode, fine):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    if fine:
        make_private_folder(folder)
    else:
        with pytest.raises(OSError, match="everybody may write into this folder: chmod o-w"):
            make_private_folder(folder)
    make_private_folder(folder / "of" / "ours")  # the folder of its own is the way out
    assert stat.S_IMODE((folder / "of" / "ours").stat().st_mode) == 0o700


def test_a_link_of_ours_may_lead_to_a_ledger_and_that_of_another_may_not(tmp_path):
    (tmp_path / "link").symlink_to("there")
    refuse_foreign_link(tmp_path / "link")
    refuse_foreign_link(tmp_path / "nothing")
    if os.geteuid() == 0:
        os.lchown(tmp_path / "link", 65534, 65534)
        with pytest.raises(OSError, match="a link of user 65534"):
            refuse_foreign_link(tmp_path / "link")


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        written_by(regular, tmp_path / "pipe", "rb")

"""File systems on which log calls may wait for a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_integrations.journal.filesystem import network_file_system

MOUNTS = """
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/local xfs rw 0 0
bucket /mnt/with\\040space fuse.s3fs rw 0 0
//server/share /mnt/share cifs rw 0 0
/dev/sdc1 /mnt/disk fuseblk rw 0 0
scratch /scratch lustre rw 0 0
/dev/sdd1 /homework ext4 rw 0 0
short line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/runs", None),
        ("/home/me/runs", "nfs4"),
        ("/home/me/local/runs", None),
        ("/home", "nfs4"),
        ("/homework/runs", None),
        ("/mnt/with space/runs", "fuse.s3fs"),
        ("/mnt/share/runs", "cifs"),
        ("/mnt/disk/runs", None),
        ("/scratch/me", "lustre"),
    ],
)
def test_network_file_systems(tmp_path: Path, path: str, kind: str | None) -> None:
    """The innermost mount decides; a local disk behind FUSE is local."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert kind == network_file_system(Path(path), mounts)


def test_later_mount_hides_an_earlier_one(tmp_path: Path) -> None:
    """Of two mounts at one place the last is the one that is seen."""
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda1 /data ext4 rw 0 0\nserver:/data /data nfs rw 0 0\n")
    assert network_file_system(Path("/data/runs"), mounts) == "nfs"


def test_where_it_can_not_be_told(tmp_path: Path) -> None:
    """A system without such a list says nothing."""
    assert network_file_system(tmp_path, tmp_path / "missing") is None

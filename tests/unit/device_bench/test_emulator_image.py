"""The emulated phone's image: the archive that it boots from, kernel modules, and finding this machine's archive."""

import io
import stat
import subprocess
import tarfile

import pytest

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.emulator import image as image_module
from phonefit.device_bench.emulator.image import Image, find_image
from phonefit.device_bench.emulator.initramfs import Entry, cpio, depends, link, load_order, text_file
from phonefit.device_bench.emulator.packages import keyring_of
from phonefit.models.record import file_digest


def read_cpio(archive):
    """name -> (mode, data), read by the format's own rules."""
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701" and at % 4 == 0
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        start = at + 110
        name = archive[start : start + name_size - 1].decode()
        start += name_size + -(start + name_size) % 4
        if name == "TRAILER!!!":
            return found
        assert fields[5] == 0, "no time of building may be in it"
        found[name] = (mode, archive[start : start + size])
        at = start + size + -(start + size) % 4


def test_an_archive_holds_what_was_put_in_and_the_folders_above():
    found = read_cpio(cpio({"usr/bin/tool": text_file("run", executable=True), "bin": link("usr/bin")}))
    assert list(found) == ["bin", "usr", "usr/bin", "usr/bin/tool"], "a folder comes before what is in it"
    assert found["usr/bin/tool"] == (stat.S_IFREG | 0o755, b"run")
    assert found["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert stat.S_ISDIR(found["usr"][0])


def test_the_same_files_give_the_same_bytes_in_any_order():
    entries = {"b": text_file("2"), "a/c": text_file("33"), "a": Entry(stat.S_IFDIR | 0o700)}
    assert cpio(entries) == cpio(dict(reversed(entries.items())))
    assert read_cpio(cpio(entries))["a"][0] == stat.S_IFDIR | 0o700


def module(*needed):
    import lzma

    return lzma.compress(b"\x7fELF\0license=GPL\0depends=" + ",".join(needed).encode() + b"\0vermagic=6\0")


def test_modules_are_loaded_after_those_they_need_and_only_once():
    modules = {
        "net": module("failover-net"),
        "failover_net": module("failover"),
        "failover": module(),
        "disk": module(),
    }
    assert load_order(modules, ["net", "disk", "failover"]) == ["failover", "failover_net", "net", "disk"]


def test_a_module_that_the_kernel_lacks_is_named():
    with pytest.raises(DeviceError, match="'net'"):
        load_order({"disk": module()}, ["disk", "net"])


def test_a_module_without_needs():
    assert depends(b"x\0depends=\0y") == []


@pytest.mark.parametrize(
    ("sources", "keyring"),
    [
        (
            "Types: deb\nURIs: address\nSuites: stable\nSigned-By: /usr/share/keyrings/a.gpg\n",
            "/usr/share/keyrings/a.gpg",
        ),
        ("deb [arch=amd64 signed-by=/etc/apt/keyrings/b.asc] address stable main\n", "/etc/apt/keyrings/b.asc"),
        ("deb address stable main\n", ""),
        ("Types: deb\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n", ""),
    ],
)
def test_the_keyring_of_both_formats_of_sources(sources, keyring):
    assert keyring_of(sources) == keyring


@pytest.fixture
def built(tmp_path):
    place = tmp_path / "image"
    place.mkdir()
    for name in ("kernel", "initramfs"):
        (place / name).write_bytes(name.encode() * 100)
    files = {name: file_digest(place / name) for name in ("kernel", "initramfs")}
    Image(inputs="0", files=files, kernel_version="6", packages={}).save(place / "image.json")
    return tmp_path


def test_an_image_with_a_changed_or_missing_file_is_none(built):
    assert find_image(built) is not None
    (built / "image/kernel").write_bytes(b"another")
    assert find_image(built) is None
    (built / "image/kernel").unlink()
    assert find_image(built) is None


def debian_package(path, files):
    """A real .deb, made by dpkg-deb."""
    root = path.with_suffix("")
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text("Package: p\nVersion: 1\nArchitecture: arm64\nMaintainer: m\nDescription: d\n")
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    subprocess.run(["dpkg-deb", "--build", root, path], check=True, capture_output=True)


def test_the_image_is_assembled_from_packages_and_is_the_same_twice(tmp_path, monkeypatch):
    packages = tmp_path / "packages"
    packages.mkdir()
    modules = "usr/lib/modules/6.1-arm64/kernel/drivers"
    debian_package(
        packages / "linux-image-6.1_arm64.deb",
        {
            "boot/vmlinuz-6.1-arm64": b"kernel",
            f"{modules}/net/virtio_net.ko.xz": module("failover"),
            f"{modules}/net/failover.ko.xz": module(),
            f"{modules}/block/virtio_blk.ko.xz": module(),
        },
    )
    debian_package(
        packages / "busybox.deb",
        {
            "usr/bin/busybox": b"busybox",
            "usr/lib/aarch64-linux-gnu/libc.so.6": b"libc",
            "usr/lib/aarch64-linux-gnu/gconv/UTF-16.so": b"not needed",
            "usr/share/doc/readme": b"not needed",
        },
    )
    files = {path.name: file_digest(path) for path in packages.glob("*.deb")}
    listing = image_module.PackageList(suite="s", packages=(), files=files)
    monkeypatch.setattr(image_module, "fetch", lambda folder: listing)
    first = image_module.build_image(tmp_path)
    assert first.kernel_version == "6.1-arm64"
    assert (tmp_path / "image/kernel").read_bytes() == b"kernel"
    content = read_cpio((tmp_path / "image/initramfs").read_bytes())
    assert content["modules/order"][1].split() == [b"failover", b"virtio_net", b"virtio_blk"]
    assert content["init"][0] == stat.S_IFREG | 0o755 and content["init"][1].startswith(b"#!/usr/bin/busybox sh")
    assert content["usr/lib/aarch64-linux-gnu/libc.so.6"][1] == b"libc"
    assert not [name for name in content if "gconv" in name or "doc" in name]
    # damaged, it is built anew, and is what it was
    (tmp_path / "image/initramfs").write_bytes(b"")
    assert image_module.build_image(tmp_path) == first == find_image(tmp_path)


def test_tar_archives_are_not_taken_for_packages(tmp_path):
    path = tmp_path / "x.deb"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("usr/bin/busybox"), io.BytesIO())
    with pytest.raises(DeviceError, match="not a readable Debian package"):
        image_module.files_of(path, image_module._WANTED)

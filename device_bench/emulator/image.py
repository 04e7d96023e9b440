"""Kernel and file system of the emulated phone, built from Debian packages and kept under .cache/emulator.

Building again does nothing as long as what was built is unchanged and made from the same packages, the same init
script and the same recipe: every file's sha256 is recorded in image.json and compared.
"""

import re
import stat
from pathlib import Path, PurePosixPath

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.emulator.initramfs import Entry, cpio, files_of, folder, link, load_order, text_file
from phonefit.device_bench.emulator.locks import locked
from phonefit.device_bench.emulator.packages import PackageList, fetch
from phonefit.models.record import Record, digest_of, file_digest, write_atomically

# To be raised when what is taken from the packages changes.
_RECIPE = 1
_MODULES = ("virtio_net", "virtio_blk")
_GUEST_INIT = Path(__file__).with_name("guest_init")
_LIBRARIES = r"usr/lib/aarch64-linux-gnu/(android/)?[^/]+\.so(\.[^/]*)?|usr/lib/ld-linux-aarch64\.so\.1"
_WANTED = re.compile(rf"{_LIBRARIES}|usr/bin/busybox|usr/lib/android-sdk/platform-tools/adbd")
_KERNEL = re.compile(r"boot/vmlinuz-.*|usr/lib/modules/[^/]+/kernel/.*\.ko\.xz")


class Image(Record):
    """What was built, and from what.

    Attributes:
        inputs: digest of everything that it was built from.
        files: file name -> sha256.
        kernel_version: as `uname -r` says in the guest.
    """

    schema_number: int = 1
    inputs: str
    files: dict[str, str]
    kernel_version: str
    packages: dict[str, str]


def default_cache() -> Path:
    """Where the emulator's files are kept: .cache/emulator of the checkout, or the user's when installed."""
    root = Path(__file__).resolve().parents[2]
    return root / ".cache/emulator" if (root / "pyproject.toml").is_file() else Path.home() / ".cache/phonefit/emulator"


def image_folder(cache: Path) -> Path:
    """Where kernel and initramfs lie in a cache folder."""
    return cache / "image"


def build_image(cache: Path) -> Image:
    """Build the image in `cache`, or find that it is already there.

    Raises:
        DeviceError: a tool is missing, or the packages cannot be fetched or do not hold what is expected.
    """
    cache = cache.resolve()
    with locked(cache / "image.lock", "another process is building the emulator's image"):
        packages = fetch(cache / "packages")
        inputs = _digest(packages)
        found = find_image(cache)
        if found is not None and found.inputs == inputs:
            return found
        place = image_folder(cache)
        place.mkdir(exist_ok=True)
        kernel, initramfs, version = _assemble(cache / "packages", packages)
        write_atomically(place / "kernel", kernel)
        write_atomically(place / "initramfs", initramfs)
        image = Image(
            inputs=inputs,
            files={name: file_digest(place / name) for name in ("kernel", "initramfs")},
            kernel_version=version,
            packages=packages.files,
        )
        image.save(place / "image.json")
        return image


def find_image(cache: Path) -> Image | None:
    """The image in `cache`; None when there is none, or its files are not those that were built."""
    description = image_folder(cache) / "image.json"
    if not description.is_file():
        return None
    image = Image.load(description)
    for name, sha256 in image.files.items():
        path = image_folder(cache) / name
        if not path.is_file() or file_digest(path) != sha256:
            return None
    return image


def is_current(image: Image, cache: Path) -> bool:
    """Whether the image is what this version of phonefit builds from the packages in `cache`."""
    listing = cache / "packages/packages.json"
    return listing.is_file() and _digest(PackageList.load(listing)) == image.inputs


def _digest(packages: PackageList) -> str:
    return digest_of([_RECIPE, file_digest(_GUEST_INIT), _MODULES, packages.files])


def _assemble(place: Path, packages: PackageList) -> tuple[bytes, bytes, str]:
    """Kernel, initramfs and the kernel's version from the packages."""
    entries: dict[str, Entry] = {}
    kernel_files: dict[str, Entry] = {}
    for name in sorted(packages.files):
        if name.startswith("linux-image-"):
            kernel_files |= files_of(place / name, _KERNEL)
        else:
            entries |= files_of(place / name, _WANTED)
    kernels = [name for name in kernel_files if name.startswith("boot/")]
    if len(kernels) != 1 or "usr/bin/busybox" not in entries:
        raise DeviceError(f"unexpected Debian packages: {len(kernels)} kernels; remove {place} and build again")
    modules = {
        PurePosixPath(name).name.removesuffix(".ko.xz").replace("-", "_"): entry.data
        for name, entry in kernel_files.items()
        if name.endswith(".ko.xz")
    }
    return kernel_files[kernels[0]].data, _initramfs(entries, modules), kernels[0].removeprefix("boot/vmlinuz-")


def _initramfs(entries: dict[str, Entry], modules: dict[str, bytes]) -> bytes:
    import lzma

    order = load_order(modules, _MODULES)
    entries = dict(entries)
    for name in order:
        entries[f"modules/{name}.ko"] = Entry(stat.S_IFREG | 0o644, lzma.decompress(modules[name]))
    entries["modules/order"] = text_file("".join(f"{name}\n" for name in order))
    entries["init"] = text_file(_GUEST_INIT.read_text(), executable=True)
    entries["usr/bin/adbd"] = link("/usr/lib/android-sdk/platform-tools/adbd")
    entries["etc/passwd"] = text_file("root:x:0:0:root:/data/local/tmp:/bin/sh\n")
    entries["etc/group"] = text_file("root:x:0:\n")
    for name, target in (("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib")):
        entries[name] = link(target)
    for name in ("proc", "sys", "dev", "tmp", "data", "root"):
        entries[name] = folder()
    return cpio(entries)

"""Photographs of two persons, from the tests of the package face_recognition (MIT): what `make faces` fetches."""

import tarfile
from pathlib import Path

from PIL import Image

from phonefit.models.families.face_resnet import MANIFEST

FOLDER = Path(__file__).parents[1] / ".cache" / "faces"
ARCHIVE = FOLDER / "face_recognition-1.3.0.tar.gz"
# Name -> the face in it, from the eyebrows to the chin with a quarter more on each side: left, top, right, bottom
FACES = {
    "biden.jpg": (364, 217, 776, 630),
    "obama.jpg": (314, 127, 672, 484),
    "obama2.jpg": (58, 260, 538, 740),
    "obama3.jpg": (559, 286, 956, 682),
}


def lacks() -> str:
    """What is missing, with the remedy; "" when nothing."""
    missing = [str(path) for path in (FOLDER / MANIFEST, ARCHIVE) if not path.is_file()]
    return f"{' and '.join(missing)} missing: make faces" if missing else ""


def write_photographs(folder: Path) -> dict[str, Path]:
    """Extract the photographs: name -> path."""
    paths = {}
    with tarfile.open(ARCHIVE) as archive:
        for name in FACES:
            content = archive.extractfile(f"face_recognition-1.3.0/tests/test_images/{name}")
            assert content is not None
            paths[name] = folder / name
            Image.open(content).save(paths[name], quality=95)
    return paths

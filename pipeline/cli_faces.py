"""The commands that compare pictures by an embedding: compare-faces, enrol, identify."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from phonefit.pipeline.cli_common import JsonOption, RunsOption, print_json, print_rich

app = typer.Typer()
ModelOption = Annotated[
    str, typer.Option("--model", help="A run, whose best file is taken, or a converted file. Its threshold decides.")
]
GalleryOption = Annotated[Path, typer.Option("--gallery", help="Folder of those who are enrolled.")]
LandmarksOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="X,Y,…",
        help="Five points in pixels by which the face is aligned: the eyes, the tip of the nose, the corners of the "
        "mouth, left before right as in the picture. Once for each picture, in their order.",
    ),
]
CropOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LEFT,TOP,RIGHT,BOTTOM", help="The part of the picture to look at, in pixels; as --landmarks."
    ),
]


@app.command(
    "compare-faces",
    epilog="Example: phonefit compare-faces a.jpg b.jpg. Exit codes: 0 the same, 1 different, 2 bad use or input",
)
def compare_faces(
    first: Annotated[Path, typer.Argument(metavar="A", help="A picture.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    model: ModelOption = "faces",
    landmarks: LandmarksOption = None,
    crop: CropOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Say whether two pictures show the same person, or the same of whatever the model was trained on."""
    from phonefit.pipeline.faces import compare, open_embedder, parts_of

    parts = parts_of(2, landmarks or [], crop or [])
    embedder = open_embedder(model, runs)
    cosine, same = compare(embedder, (first, second), parts)
    threshold = embedder.decoding.threshold
    if as_json:
        print_json({"cosine": cosine, "same": same, "threshold": threshold, "model": embedder.artifact.file})
    else:
        print_rich(f"{'the same' if same else 'different'}: cosine {cosine:.3f}, threshold {threshold:.3f}")
    raise typer.Exit(0 if same else 1)


@app.command(epilog="Example: phonefit enrol ann ann1.jpg ann2.jpg --gallery people")
def enrol(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is.")],
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Pictures of them alone.")],
    gallery: GalleryOption,
    model: ModelOption = "faces",
    landmarks: LandmarksOption = None,
    crop: CropOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Remember someone: GALLERY/NAME.json keeps what the model makes of the pictures. Delete it to forget them."""
    from phonefit.pipeline.faces import enrol as enrol_pictures
    from phonefit.pipeline.faces import open_embedder, parts_of

    parts = parts_of(len(pictures), landmarks or [], crop or [])
    record = enrol_pictures(open_embedder(model, runs), name, pictures, parts, gallery)
    if as_json:
        print_json({"name": record.name, "pictures": list(record.pictures)})
    else:
        print_rich(f"{record.name}: {len(record.pictures)} pictures in {gallery}")


@app.command(
    epilog="Example: phonefit identify photo.jpg --gallery people. Exit codes: 0 known, 1 nobody, 2 bad use or input"
)
def identify(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE")],
    gallery: GalleryOption,
    model: ModelOption = "faces",
    landmarks: LandmarksOption = None,
    crop: CropOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Say who of those who are enrolled a picture shows."""
    from phonefit.pipeline.faces import identify as identify_picture
    from phonefit.pipeline.faces import open_embedder, parts_of

    (part,) = parts_of(1, landmarks or [], crop or [])
    embedder = open_embedder(model, runs)
    match = identify_picture(embedder, picture, part, gallery)
    threshold = embedder.decoding.threshold
    if as_json:
        print_json({**asdict(match), "threshold": threshold})
    else:
        told = match.name if match.known else f"nobody; nearest is {match.name}"
        print_rich(f"{told}: cosine {match.cosine:.3f}, threshold {threshold:.3f}")
    raise typer.Exit(0 if match.known else 1)

"""The architecture of a new student. Imports no torch."""

from phonefit.models.spec import Architecture
from phonefit.pipeline.recipe_steps import StudentConfig


def architecture_of_student(student: StudentConfig, teacher: Architecture) -> Architecture:
    """What rebuilds the untrained student: outputs and input size are the teacher's."""
    return Architecture(
        family=student.family,
        depth=student.depth,
        width=student.width,
        head=student.head,
        detector=teacher.detector,
        outputs=teacher.outputs,
        height=teacher.height,
        width_pixels=teacher.width_pixels,
    )

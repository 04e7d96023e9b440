"""The check of android_demo/ without Gradle: `python -m android_demo.check`.

`… tools` only fetches the tools, `… golden` writes the committed vectors anew.

Gradle with the Android plugin builds the app to install. This check needs neither, nor an Android SDK: the Kotlin
sources are compiled against Android's classes, their tests and the vectors of Python are run on the JVM and on the dex
translated back, and resources, manifest and packaging go through Android's own tools.
"""

import sys
import time
import zipfile
from pathlib import Path

from android_demo.check import kotlin, package, vectors
from android_demo.check.steps import say, step
from android_demo.check.tools import CACHE, REPOSITORY, CheckError, fetch, pinned
from phonefit.device_bench.emulator.locks import locked
from phonefit.models.errors import PhonefitError

PHOTOS = REPOSITORY / ".cache/wheels/foolbox-3.3.4-py3-none-any.whl"
GOLDEN = REPOSITORY / "tests/golden"  # which the core's tests read too
RESOURCES = kotlin.DEMO / "core/src/test/resources"


def check() -> None:
    """All steps.

    Raises:
        CheckError: one failed.
    """
    app = package.versions()
    package.manifest_checked()
    kotlin.styled()
    core = kotlin.compiled("core compiled", kotlin.sources("core/src/main"), [], android=True)
    linked = package.linked(app)
    runtimes = pinned()["react-native-executorch"].find("classes.jar")
    java = sorted(file for place in (kotlin.STUBS, linked / "java") for file in place.rglob("*.java"))
    compiled = kotlin.compiled(
        "app compiled", kotlin.sources("app/src/main"), [core, runtimes], android=True, java=java
    )
    library = kotlin.kotlin_jar("kotlin-stdlib")
    libraries = kotlin.dexed("libraries dexed", [library, runtimes], [], app.minimum)
    core_dex = kotlin.dexed("core dexed", [core], [library], app.minimum)
    app_dex = kotlin.dexed("app dexed", [core, compiled], [library, runtimes], app.minimum)
    apk = package.packaged(linked, app_dex, libraries)
    _run_core(core, kotlin.translated_back("dex translated back", core_dex))
    say(f"{apk.relative_to(REPOSITORY)} is a check, not an app to install: it lacks the classes of TFLite, ONNX")
    say("Runtime and fbjni, which cannot be had here. For a phone build android_demo/ with Gradle: docs/android.md")


def _run_core(core: Path, translated: Path) -> None:
    """The core's tests and the vectors, on class files and on the dex translated back: the same must come out."""
    test_jars = [kotlin.kotlin_jar("kotlin-test"), kotlin.kotlin_jar("kotlin-test-junit"), *kotlin.junit_jars()]
    files = kotlin.sources("core/src/test", "check/kotlin")
    tests = kotlin.compiled("tests of core compiled", files, [core, *test_jars], android=False, friend=core)
    with zipfile.ZipFile(tests) as archive:
        names = sorted(name.removesuffix(".class").replace("/", ".") for name in archive.namelist())
    classes = [name for name in names if name.endswith("Test")]
    cases = _vectors()
    said: dict[str, tuple[list[str], str]] = {}
    for kind, jar in {"class files": core, "dex": translated}.items():
        path = [jar, tests, *test_jars, kotlin.kotlin_jar("kotlin-stdlib"), RESOURCES]
        ran = kotlin.run_main(f"tests on {kind}", "org.phonefit.check.RunTestsKt", classes, path, [GOLDEN])
        compared = kotlin.run_main(f"vectors on {kind}", "org.phonefit.check.CheckVectorsKt", [cases], path, [cases])
        said[kind] = (sorted(ran.splitlines()), compared)
    if said["dex"] != said["class files"]:
        raise CheckError(f"the core answers otherwise after dexing: {said}")
    passed, agreed = said["dex"]
    say(f"{len(passed)} tests of core passed, on class files and on dex. Python and Kotlin agree on the vectors:")
    say(agreed.strip())


def _vectors() -> Path:
    if not PHOTOS.is_file():
        raise CheckError(f"{PHOTOS.relative_to(REPOSITORY)} is missing: run make android-check, which downloads it")
    sources = [*(REPOSITORY / "models").glob("*.py"), *(REPOSITORY / "models/data").glob("*.py")]
    sources += [REPOSITORY / "device_bench/runtimes/runtime.py", Path(vectors.__file__), PHOTOS]
    return step(
        "vectors computed", sources, None, lambda folder: vectors.write_vectors(folder, vectors.read_photos(PHOTOS))
    )


def main(arguments: list[str]) -> int:
    """Run the check or fetch the tools; returns the exit status."""
    if arguments not in ([], ["tools"], ["golden"]):
        sys.stderr.write("usage: python -m android_demo.check [tools | golden]\n")
        return 2
    if arguments == ["golden"]:
        vectors.write_golden(RESOURCES / "vectors")
        return 0
    begin = time.monotonic()
    try:
        with locked(CACHE / "lock", "another process is running the check", patience_seconds=900):
            fetch(say)
            if not arguments:
                check()
    except PhonefitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    say(f"done in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

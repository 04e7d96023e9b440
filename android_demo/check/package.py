"""From resources, classes and native libraries to an APK that is aligned, signed and verified.

The APK is a check, and no build to install: it lacks the Java classes of TFLite, ONNX Runtime and fbjni, which are not
to be had outside Google's Maven repository and Maven Central.
"""

import re
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from android_demo.check.kotlin import DEMO, JAVA
from android_demo.check.manifest import badging_problems, problems
from android_demo.check.steps import step
from android_demo.check.tools import CheckError, pinned, run
from phonefit.device_bench.app_job import APPLICATION, RUNTIMES_ASSET, AppRuntimes

MAIN = DEMO / "app/src/main"
MANIFEST = MAIN / "AndroidManifest.xml"
ASSET = MAIN / RUNTIMES_ASSET
CATALOG = DEMO / "gradle/libs.versions.toml"
BUILD_FILE = DEMO / "app/build.gradle.kts"
APK = "check-not-for-installing.apk"
# Name of a runtime in the asset -> in the version catalog.
RUNTIMES = {"executorch": "executorch", "tflite": "litert", "onnx": "onnxruntime"}
PASSWORD = "pass:android-check"  # of a key that is made for the check and signs nothing else


@dataclass(frozen=True)
class Versions:
    """What the Gradle build says of the app."""

    minimum: int
    target: int
    code: str
    name: str


def versions() -> Versions:
    """Read from the version catalog and the app's build file; the app's own list of runtimes must say the same.

    Raises:
        CheckError: they differ.
    """
    catalog = tomllib.loads(CATALOG.read_text())["versions"]
    build = BUILD_FILE.read_text()
    code, name = re.search(r"versionCode = (\d+)", build), re.search(r'versionName = "([^"]+)"', build)
    if code is None or name is None:
        raise CheckError(f"{BUILD_FILE}: no versionCode or versionName")
    asset = AppRuntimes.load(ASSET)
    expected = {runtime: catalog[entry] for runtime, entry in RUNTIMES.items()}
    if (asset.app_version, dict(asset.runtimes)) != (name[1], expected):
        raise CheckError(f"{ASSET.name} says {asset.app_version}, {asset.runtimes}; the build {name[1]}, {expected}")
    return Versions(int(catalog["minSdk"]), int(catalog["targetSdk"]), code[1], name[1])


def manifest_checked() -> None:
    """Hold the source of the manifest against the policy of manifest.py."""

    def work(folder: Path) -> None:
        if found := problems(MANIFEST.read_text()):
            raise CheckError(f"{MANIFEST.name}:\n" + "\n".join(f"  {problem}" for problem in found))

    step("manifest", [MANIFEST, Path(__file__).with_name("manifest.py")], None, work)


def linked(app: Versions) -> Path:
    """Compile and link the resources; returns the folder with base.apk and the sources of R below java/."""
    aapt2 = pinned()["mobsf"].find("aapt2_64")
    framework = pinned()["mobsf"].find("android-framework.jar")

    def work(folder: Path) -> None:
        source = MANIFEST.read_text().replace("<manifest ", f'<manifest package="{APPLICATION}" ', 1)
        (folder / "AndroidManifest.xml").write_text(source)
        compiled = folder / "resources.zip"
        said = run([aapt2, "compile", "--dir", MAIN / "res", "-o", compiled])
        options = ["--min-sdk-version", str(app.minimum), "--target-sdk-version", str(app.target)]
        options += ["--version-code", app.code, "--version-name", f"{app.name}-check"]
        link: list[str | Path] = [
            aapt2,
            "link",
            "-I",
            framework,
            "--manifest",
            folder / "AndroidManifest.xml",
            "-A",
            MAIN / "assets",
        ]
        linking = run([*link, *options, "--java", folder / "java", "-o", folder / "base.apk", compiled])
        if warnings := (said.stderr + linking.stderr).strip():
            raise CheckError(f"aapt2 warns:\n{warnings}")
        badging = run([aapt2, "dump", "badging", folder / "base.apk"]).stdout
        if found := badging_problems(badging, app.minimum, app.target):
            raise CheckError("\n".join(found))

    return step("resources linked", [MAIN / "res", MAIN / "assets", MANIFEST], [str(aapt2), vars(app)], work)


def packaged(base: Path, dex: Path, libraries: Path) -> Path:
    """Put the parts together, align, sign and verify; returns the APK.

    Args:
        base: the folder of `linked`.
        dex, libraries: folders with the classes.dex of the app, and of what it is built with.
    """
    zipalign = pinned()["zipalign"].find("zipalign")
    apksigner: list[str | Path] = [*JAVA, "-jar", pinned()["mobsf"].find("apksigner.jar")]

    def work(folder: Path) -> None:
        whole, aligned = folder / "whole.apk", folder / "aligned.apk"
        whole.write_bytes((base / "base.apk").read_bytes())
        with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.write(dex / "classes.dex", "classes.dex")
            archive.write(libraries / "classes.dex", "classes2.dex")
            for name, library in native_libraries().items():
                archive.write(library, name, zipfile.ZIP_STORED)
        # the name that zipalign's libraries know it by
        (folder / "lib7z.so").symlink_to(pinned()["p7zip-full"].find("7z.so"))
        environment = {"LD_LIBRARY_PATH": ":".join(map(str, [folder, *sorted(_library_folders())]))}
        run([zipalign, "-p", "4", whole, aligned], environment=environment)
        run([zipalign, "-c", "-p", "4", aligned], environment=environment)
        key = folder / "key"
        alias = ["-alias", "check", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000", "-dname", "CN=check"]
        run(["keytool", "-genkeypair", "-keystore", key, "-storepass", PASSWORD.removeprefix("pass:"), *alias])
        run([*apksigner, "sign", "--ks", key, "--ks-pass", PASSWORD, "--out", folder / APK, aligned])
        run([*apksigner, "verify", "-Werr", folder / APK])
        for path in (whole, aligned, folder / "lib7z.so"):
            path.unlink()

    return step("APK signed and verified", [base, dex, libraries], [str(zipalign)], work) / APK


def native_libraries() -> dict[str, Path]:
    """Those that can be had: name in the APK -> file."""
    found = {}
    for package, name in {
        "react-native-executorch": "executorch_jni",
        "react-native-fast-tflite": "tensorflowlite_jni",
    }.items():
        for path in sorted(pinned()[package].folder.rglob("*.so")):
            found[f"lib/{path.parent.name}/lib{name}.so"] = path
    return found


def _library_folders() -> set[Path]:
    names = [name for name in pinned() if name.startswith(("android-lib", "libzopfli"))]
    return {path.parent for name in names for path in pinned()[name].folder.rglob("*.so*")}

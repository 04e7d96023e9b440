"""What the app's manifest may say: one entry for what is open to others, and a reason against everything else."""

from xml.etree import ElementTree

ANDROID = "{http://schemas.android.com/apk/res/android}"
# The launcher's entry, and that of `adb shell am start`: the shell holds DUMP, other apps cannot.
EXPORTED = {".MainActivity": None, ".BenchmarkActivity": "android.permission.DUMP"}
LAUNCHER = ".MainActivity"
PERMISSIONS = {"android.permission.CAMERA", "android.permission.WAKE_LOCK"}
COMPONENTS = ("activity", "activity-alias", "service", "receiver", "provider")


def problems(text: str) -> list[str]:
    """Everything in a manifest that should not be there, or is missing; empty when it is right.

    Args:
        text: the source, AndroidManifest.xml. Attributes that Gradle adds (package, SDK versions) are not asked for.
    """
    try:
        manifest = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return [f"not XML: {error}"]
    application = manifest.find("application")
    if manifest.tag != "manifest" or application is None:
        return ["no <application> in a <manifest>"]
    return [*_permissions(manifest), *_application(application), *_exported(application)]


def _permissions(manifest: ElementTree.Element) -> list[str]:
    asked = {str(entry.get(f"{ANDROID}name")) for entry in manifest if entry.tag.startswith("uses-permission")}
    return [
        *(f"permission {name} is asked for, but not needed" for name in sorted(asked - PERMISSIONS)),
        *(f"permission {name} is missing" for name in sorted(PERMISSIONS - asked)),
    ]


def _application(application: ElementTree.Element) -> list[str]:
    found = []
    if application.get(f"{ANDROID}debuggable") is not None:
        found.append("debuggable is for the build type to say: a release would be debuggable")
    if application.get(f"{ANDROID}testOnly") == "true":
        found.append("testOnly: it could not be installed as usual")
    if application.get(f"{ANDROID}allowBackup") != "false":
        found.append("allowBackup is not false: models would be backed up")
    if application.get(f"{ANDROID}dataExtractionRules") is None:
        found.append("no dataExtractionRules: from Android 12 on, models would move to a new phone")
    if application.get(f"{ANDROID}usesCleartextTraffic") != "false":
        found.append("usesCleartextTraffic is not false")
    if application.get(f"{ANDROID}networkSecurityConfig") is not None:
        found.append("networkSecurityConfig overrides usesCleartextTraffic, and the app has no network")
    return found


def _exported(application: ElementTree.Element) -> list[str]:
    found = []
    components = [entry for entry in application if entry.tag in COMPONENTS]
    names = [str(entry.get(f"{ANDROID}name")) for entry in components]
    found += [f"{name} is there {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1]
    for name, entry in zip(names, components, strict=True):
        exported = entry.get(f"{ANDROID}exported")
        if name in EXPORTED and entry.tag == "activity":
            if exported != "true":
                found.append(f"{name} is not exported: it cannot be started")
            if entry.get(f"{ANDROID}permission") != EXPORTED[name]:
                found.append(f"{name} asks its caller for {entry.get(f'{ANDROID}permission')}, not {EXPORTED[name]}")
        elif exported != "false":
            found.append(f"{entry.tag} {name} is open to other apps: exported is {exported}, not false")
    found += [f"activity {name} is missing" for name in EXPORTED if name not in names]
    launched = [
        name
        for name, entry in zip(names, components, strict=True)
        if "android.intent.category.LAUNCHER" in [item.get(f"{ANDROID}name") for item in entry.iter("category")]
    ]
    if launched != [LAUNCHER]:
        found.append(f"the launcher starts {', '.join(launched) or 'nothing'}, not {LAUNCHER}")
    return found


def badging_problems(badging: str, minimum: int, target: int) -> list[str]:
    """What is wrong in a packaged manifest, from what `aapt2 dump badging` says of the APK."""
    lines = badging.splitlines()
    wanted = [f"minSdkVersion:'{minimum}'", f"targetSdkVersion:'{target}'"]
    found = [f"no {line} in the package" for line in wanted if line not in lines]
    return found + [f"the package is {line}" for line in lines if line in ("application-debuggable", "testOnly='-1'")]

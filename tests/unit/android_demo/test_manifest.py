"""The manifest checker: the app's own passes, and each thing that must not be in one is named."""

import pytest

from android_demo.check.manifest import badging_problems, problems
from android_demo.check.package import MANIFEST

GOOD = MANIFEST.read_text()
ACTIVITY = '<activity android:name=".MainActivity"'


def test_the_apps_manifest_is_right():
    assert problems(GOOD) == []


def changed(old: str, new: str) -> list[str]:
    text = " ".join(GOOD.split())  # whatever the formatting
    assert old in text
    return problems(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('android:allowBackup="false"', "", "allowBackup is not false"),
        ('android:allowBackup="false"', 'android:allowBackup="true"', "allowBackup is not false"),
        ('android:dataExtractionRules="@xml/data_extraction_rules"', "", "no dataExtractionRules"),
        ('android:usesCleartextTraffic="false"', 'android:usesCleartextTraffic="true"', "usesCleartextTraffic"),
        ('android:usesCleartextTraffic="false"', "", "usesCleartextTraffic"),
        ("<application", '<application android:networkSecurityConfig="@xml/open"', "networkSecurityConfig"),
        ("<application", '<application android:debuggable="true"', "debuggable"),
        ("<application", '<application android:debuggable="false"', "debuggable"),
        ("<application", '<application android:testOnly="true"', "testOnly"),
        (
            "android.permission.WAKE_LOCK",
            "android.permission.INTERNET",
            "permission android.permission.INTERNET is asked",
        ),
        (
            "android.permission.WAKE_LOCK",
            "android.permission.INTERNET",
            "permission android.permission.WAKE_LOCK is miss",
        ),
        ("<application", '<uses-permission-sdk-23 android:name="a.B" /> <application', "permission a.B is asked"),
        ("</application>", '<service android:name=".S" android:exported="true" /></application>', "service .S is open"),
        ("</application>", '<activity android:name=".A" /></application>', "activity .A is open to other apps"),
        ("</application>", '<provider android:name=".P" /></application>', "provider .P is open to other apps"),
        ("</application>", '<receiver android:name=".MainActivity" /></application>', "receiver .MainActivity is open"),
        ("</application>", f'{ACTIVITY} android:exported="true" /></application>', ".MainActivity is there 2 times"),
        ('android:permission="android.permission.DUMP"', "", ".BenchmarkActivity asks its caller for None"),
        ('android:name=".BenchmarkActivity"', 'android:name=".Other"', "activity .BenchmarkActivity is missing"),
        ("android.intent.category.LAUNCHER", "android.intent.category.HOME", "the launcher starts nothing"),
    ],
)
def test_what_must_not_be(old, new, expected):
    assert any(problem.startswith(expected) for problem in changed(old, new))


def test_an_activity_that_may_not_be_started():
    text = " ".join(GOOD.split())
    start = text.index('android:name=".BenchmarkActivity"')
    closed = text[:start] + text[start:].replace('android:exported="true"', 'android:exported="false"', 1)
    assert problems(closed) == [".BenchmarkActivity is not exported: it cannot be started"]


@pytest.mark.parametrize(("text", "expected"), [("<manifest>", "not XML"), ("<manifest />", "no <application>")])
def test_what_is_no_manifest(text, expected):
    (problem,) = problems(text)
    assert problem.startswith(expected)


def test_what_aapt2_says_of_a_package():
    badging = "package: name='a'\nminSdkVersion:'26'\ntargetSdkVersion:'36'\n"
    assert badging_problems(badging, 26, 36) == []
    assert badging_problems(badging + "application-debuggable\n", 26, 36) == ["the package is application-debuggable"]
    assert badging_problems(badging, 24, 36) == ["no minSdkVersion:'24' in the package"]

import pytest

from phonefit.device_bench.host_facts import parse_cpuinfo, processor_name

X86 = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7B13\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\n"
)
RASPBERRY = "processor\t: 0\nCPU part\t: 0xd08\n\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B\n"
BARE_ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "name"), [(X86, "AMD EPYC 7B13"), (RASPBERRY, "BCM2835"), (BARE_ARM, ""), ("", ""), ("no colon\n", "")]
)
def test_processor_name_from_cpuinfo(text, name):
    assert parse_cpuinfo(text) == name


def test_a_nameless_processor_is_called_by_its_architecture(tmp_path):
    import platform

    (tmp_path / "cpuinfo").write_text(BARE_ARM)
    assert processor_name(tmp_path / "cpuinfo") == platform.machine()

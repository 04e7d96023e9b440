"""An emulated ARM64 phone in two tiers: exact counts of one process (qemu-user), and a whole machine (qemu-system)."""

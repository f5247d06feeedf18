"""Bytes to images: ELF, vmlinuz, kallsyms, modules and linking, ORC and CFI."""

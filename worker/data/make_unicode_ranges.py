#!/usr/bin/env python3
"""Writes unicode_ranges.inc. Run: pip install unicodedata2==16.0.0 && ./make_unicode_ranges.py > unicode_ranges.inc

Unicode 16.0 is what Oniguruma in the PyPI package tokenizers 0.23 knows; tests/golden/tokenizer_parity.py compares
every code point with it."""

import unicodedata2

assert unicodedata2.unidata_version == "16.0.0", unicodedata2.unidata_version


def ranges(initial):
    found = []
    for code in range(0x110000):
        if unicodedata2.category(chr(code))[0] != initial:
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def write(name, found):
    print(f"constexpr CodeRange {name}[] = {{")
    line = "   "
    for low, high in found:
        item = f" {{0x{low:X}, 0x{high:X}}},"
        if len(line) + len(item) > 120:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


print("// Unicode 16.0, written by make_unicode_ranges.py: general categories L* and N*, first and last code point.")
write("kLetters", ranges("L"))
write("kNumbers", ranges("N"))

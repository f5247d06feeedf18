#!/usr/bin/env python3
"""A picture of an HTML report as a browser shows it, for the README: WebP, or PNG by the target's name.

    scripts/screenshot.py REPORT TARGET [--size 1440x1000] [--dark] [--open '#context/12'] [--at SECTION]

Needs the extra dev, and the packages chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from pathlib import Path

from browser import Missing, browser, open_report, scheme


def main() -> int:
    parser = argparse.ArgumentParser(description="A picture of an HTML report.")
    parser.add_argument("report", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", default="1440x1000", help="pixels, WIDTHxHEIGHT")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument(
        "--open", default="", metavar="#KIND/ROW", help="details to open: #context/N, #frame/N"
    )
    parser.add_argument(
        "--at", default="", metavar="SECTION", help="scroll there: chains, contexts, frames …"
    )
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    picture = {"format": "png"} if options.target.suffix == ".png" else {"format": "webp", "quality": 82}
    try:
        with browser(width, height) as session:
            scheme(session, "dark" if options.dark else "light")
            open_report(session, options.report, options.open)
            if options.at:
                session.execute_script("document.getElementById(arguments[0]).scrollIntoView()", options.at)
            time.sleep(1.0)  # charts follow the width that the details leave
            found = session.execute_cdp_cmd("Page.captureScreenshot", picture)
    except Missing as error:
        print(f"screenshot: {error}", file=sys.stderr)
        return 2
    options.target.write_bytes(base64.b64decode(found["data"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

# ruff: noqa: INP001 -- the folder is a place on the path, not a package
"""Has `locust -f bench/locustfile.py --help` list the rig's options.

Locust prints its help before it reads the file that -f names (https://github.com/locustio/locust/issues/2917),
but before both it imports a module of this name, if there is one, that plugins may add their options. A clone
has this folder on its path; where the distribution locust-plugins is installed, that one comes first.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import locust

_RIG = Path(__file__).parents[1] / "locustfile.py"


def _asks_for_the_rigs_help() -> bool:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-f", "--locustfile", default=os.environ.get("LOCUST_LOCUSTFILE", ""))
    known, _ = parser.parse_known_args(sys.argv[1:])
    return known.help and Path(known.locustfile).resolve() == _RIG


if _asks_for_the_rigs_help():
    from bench.locust_rig.settings import add_options

    locust.events.init_command_line_parser.add_listener(lambda parser, **_: add_options(parser))

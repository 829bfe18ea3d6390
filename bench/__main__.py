"""`python -m bench`: the same as `tallystick bench`, see `bench.load_command`."""

import sys

from deploy.cli import run_bench
from deploy.terminal import json_asked_for, plain_errors

if __name__ == "__main__":
    with plain_errors(as_json=json_asked_for(sys.argv[1:])):
        run_bench(sys.argv[1:], "python -m bench")

"""``python -m tests.engine.fuzz -s SECONDS SEED | -n INPUTS SEED | FILE...``: runs the fuzzer in build/fuzz.

An input that ends it is left there in the file ``crash``; given as a file, it is run again.
"""

import subprocess
import sys
from pathlib import Path

from tests.engine.fuzz.building import FOLDER, build

files = [str(Path(one).resolve()) if Path(one).is_file() else one for one in sys.argv[1:]]
sys.exit(subprocess.run([build(), *files], cwd=FOLDER, check=False).returncode)

"""The files that a shard node keeps in the folder of its Redis.

Apart from the shard node's own code, which takes long to load: commands look for these files, too.
"""

from typing import Final

# The settings of the last start.
CONFIGURATION: Final = "redis.conf"
# "pid port" of the Redis that runs.
PID_FILE: Final = "redis.pid"

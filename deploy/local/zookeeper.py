"""One standalone ZooKeeper from Debian's packages, for a cluster on one machine.

Java is started directly with the jars of the package: its scripts bring their own places for configuration,
data and logs, and a JMX port, none of which fits a data folder that belongs to one cluster.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from deploy.errors import StartError

# zookeeper.jar names the jars it needs in its manifest; the second one sends its log to standard error.
DEFAULT_CLASSPATH = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar"
CLASSPATH_VARIABLE = "TALLYSTICK_ZOOKEEPER_CLASSPATH"
# The registry holds a few kilobytes; Java's default heap would be a quarter of the machine.
_HEAP_MIB = 128
# A length that answers a dead connection soon: sessions last 2 to 20 ticks by default.
_TICK_MS = 1000
# The log file is allocated in steps of this; the default of 64 MiB suits no laptop.
_PREALLOCATE_KIB = 1024
_ANSWER_SECONDS = 1.0
_CONFIGURATION = "zoo.cfg"


def write_configuration(folder: Path, port: int) -> Path:
    """Writes zoo.cfg into ``folder``, which also takes the data; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / _CONFIGURATION
    configuration.write_text(
        f"dataDir={folder}\n"
        "clientPortAddress=127.0.0.1\n"
        f"clientPort={port}\n"
        f"tickTime={_TICK_MS}\n"
        "maxClientCnxns=0\n"
        "admin.enableServer=false\n"
        "4lw.commands.whitelist=ruok,srvr\n"
        "autopurge.snapRetainCount=3\n"
        "autopurge.purgeInterval=1\n"
    )
    return configuration


def configured_folder(folder: Path) -> Path | None:
    """The folder that the configuration in ``folder`` was written for; None when there is none."""
    try:
        lines = (folder / _CONFIGURATION).read_text().splitlines()
    except OSError:
        return None
    found = (line.removeprefix("dataDir=") for line in lines if line.startswith("dataDir="))
    return next(map(Path, found), None)


def command(configuration: Path) -> list[str]:
    """The command that runs ZooKeeper with that configuration.

    Raises StartError when Java or ZooKeeper's jars are missing.
    """
    java = shutil.which("java")
    if java is None:
        raise StartError("java is not installed (Debian: apt-get install default-jre-headless)")
    classpath = os.environ.get(CLASSPATH_VARIABLE, DEFAULT_CLASSPATH)
    if not Path(classpath.split(":")[0]).exists() and "*" not in classpath:
        raise StartError(
            f"ZooKeeper is not installed: {classpath.split(':')[0]} is missing "
            f"(Debian: apt-get install zookeeper; elsewhere name its jars in {CLASSPATH_VARIABLE})"
        )
    return [
        java,
        f"-Xmx{_HEAP_MIB}m",
        "-XX:+UseSerialGC",
        f"-Dzookeeper.preAllocSize={_PREALLOCATE_KIB}",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
        "-cp",
        classpath,
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(configuration),
    ]


def is_serving(port: int) -> bool:
    """Whether a ZooKeeper on that port answers and serves: ``ruok`` alone also answers while it starts."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(b"srvr")
            answer = b""
            while part := connection.recv(4096):
                answer += part
    except OSError:
        return False
    return b"Mode: standalone" in answer

"""What a test asks of a RabbitMQ node that it has for itself, by way of the node's own tool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.server_process import ServerProcess

INSTALLED = Path("/usr/lib/rabbitmq/lib")
"""Where Debian's packages keep the tools; those in its path change the user."""
KILL_WRITERS = """
[exit(Pid, kill) || Pid <- processes(),
  case process_info(Pid, dictionary) of
    {dictionary, Words} -> proplists:get_value('$initial_call', Words) =:= {osiris_writer, init, 1};
    _ -> false
  end].
"""


def kill_stream_leaders(server: ServerProcess) -> None:
    """End the process that writes each stream; the node starts another, as another node would after a failure."""
    found = sorted(INSTALLED.glob("rabbitmq_server-*/sbin/rabbitmqctl"))
    tool = str(found[-1]) if found else shutil.which("rabbitmqctl")
    if tool is None:
        pytest.skip("bus/rabbitmq: needs rabbitmqctl, which was not found")
    command = [tool, "-n", server.environment["RABBITMQ_NODENAME"], "eval", KILL_WRITERS]
    answer = subprocess.run(
        command, env=server.environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "true" in answer, "no stream had a leader"

"""Servers with everything on disk, killed hundreds of times amid calls: nothing answered is lost, nothing is doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KILLS, SEED = 200, 1
SIDE_BY_SIDE = 2
SECONDS_PER_KILL = 5.0
SECONDS_TO_BEGIN = 120.0

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux: processes are watched by pidfd")


def option(config: pytest.Config, name: str, default: int) -> int:
    """Return an option, also when pytest was called for more than this folder and does not know it."""
    found = config.getoption(name, default=None)
    return default if found is None else int(found)


def begun(kills: int, seed: int, scratch: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.durability", "--kills", str(kills), "--seed", str(seed)]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_no_promise_is_broken_however_often_a_server_is_killed(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    kills, seed = option(request.config, "--kills", KILLS), option(request.config, "--seed", SEED)
    shares = [kills // SIDE_BY_SIDE + (number < kills % SIDE_BY_SIDE) for number in range(SIDE_BY_SIDE)]
    campaigns = [(begun(share, seed + number, tmp_path), share) for number, share in enumerate(shares) if share]
    try:
        for campaign, share in campaigns:
            output, errors = campaign.communicate(timeout=SECONDS_TO_BEGIN + share * SECONDS_PER_KILL)
            assert campaign.returncode == 0, errors
            assert_driven(json.loads(output), share)
    finally:
        for campaign, _ in campaigns:
            campaign.kill()
            campaign.communicate()


def assert_driven(summary: dict[str, Any], kills: int) -> None:
    """Hold a campaign to having done what it is for."""
    assert summary["violations"] == []
    assert summary["kills"] >= kills
    assert summary["answered"] >= kills
    assert summary["audit_records"] >= summary["answered"]
    assert summary["answered"] + summary["unknown"] == summary["calls"]

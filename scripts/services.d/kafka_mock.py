"""Keep librdkafka's mock cluster alive. Usage: kafka_mock.py FILE, to which the address is written when it answers."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from confluent_kafka import Producer


def main() -> None:
    """Serve until ended."""
    cluster = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1})
    broker = next(iter(cluster.list_topics(timeout=20).brokers.values()))
    written = Path(sys.argv[1]).with_suffix(".new")
    written.write_text(f"{broker.host}:{broker.port}\n")
    written.rename(sys.argv[1])
    signal.pause()


if __name__ == "__main__":
    main()

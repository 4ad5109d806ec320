"""The layer as a child process that can be killed and started again while it is being used."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from erp.cli.demo import children


class Lives:
    """Keeps a layer running at one address; ``kill_every`` seconds after each start it is sent SIGKILL."""

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        kill_every: float | None = None,
        on_killed: Callable[[], None] = lambda: None,
    ) -> None:
        self._data_dir = data_dir
        self._kill_every = kill_every
        self._on_killed = on_killed
        self._is_over = threading.Event()
        self._killer: threading.Thread | None = None
        self._is_being_killed = False
        self._one_at_a_time = threading.Lock()
        """Held while the layer is killed and started: two that kill at once would start two layers."""
        self.kills = 0
        self.failure: children.ChildFailedError | None = None
        """Why the layer could not be started again."""
        self._layer = self._start(port)
        self.address = self._layer.address

    @property
    def log(self) -> Path:
        """What the present process has written."""
        return self._layer.log

    def begin_killing(self) -> None:
        """Kill and start again from now on, if that is wanted."""
        if self._kill_every is not None:
            self._killer = threading.Thread(target=self._kill_now_and_then, name="killer", daemon=True)
            self._killer.start()

    def end_killing(self) -> None:
        """Let the present process live; return when it is up."""
        self._is_over.set()
        if self._killer is not None:
            self._killer.join()

    def kill(self) -> None:
        """Kill the layer now and start it again at the same address; return when it is up."""
        port = urllib.parse.urlsplit(self.address).port or 0
        with self._one_at_a_time:
            self._is_being_killed = True
            self._layer.process.kill()
            self._layer.process.wait()
            self.kills += 1
            self._on_killed()
            try:
                self._layer = self._start(port)
            except children.ChildFailedError as error:
                self.failure = error
            self._is_being_killed = False

    def stop(self) -> None:
        """End the layer in good order."""
        self.end_killing()
        self._layer.stop()

    def wait(self) -> None:
        """Return when the layer has ended by itself."""
        self._layer.process.wait()

    def check(self) -> None:
        """Raise what keeps the layer from running.

        Raises:
            ChildFailedError: it did not start again, or ended though nobody killed it.
        """
        if self.failure is not None:
            raise self.failure
        # In this order: a kill that ends in between must not look like an end nobody wanted.
        is_wanted = self._is_being_killed
        status = self._layer.process.poll()
        if status is not None and not is_wanted and not self._is_being_killed:
            message = f"The layer ended with status {status}; see {self.log}."
            raise children.ChildFailedError(message)

    def _kill_now_and_then(self) -> None:
        while self.failure is None and not self._is_over.wait(self._kill_every):
            self.kill()

    def _start(self, port: int) -> children.Child:
        return children.start(
            "layer",
            ["-m", "erp.cli", "serve", "--port", str(port), "--data-dir", str(self._data_dir)],
            announces="ready",
            log=self._data_dir / "server.log",
            env={"ERP_EGRESS_ALLOW": "127.0.0.1/32"},
        )

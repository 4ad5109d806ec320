"""Pushes submissions through a layer, a few at a time, each until it is answered for good."""

from __future__ import annotations

import heapq
import http.client
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from erp.cli.demo.client import Answer, DemoClient
from erp.cli.demo.tpch.generated import Submission

PATH = "/services/order/submit"
PATIENCE_SECONDS = 120.0
BASE_SECONDS, CAP_SECONDS = 0.05, 1.0
IDLE_SECONDS = 0.05
OK = 200

_jitter = random.Random()  # noqa: S311  (pauses, not secrets)


class PushError(RuntimeError):
    """An order was refused, or nothing was answered for a long time."""


class Agenda:
    """Submissions not yet tried, and those to be tried again at their time."""

    def __init__(self, submissions: Iterator[Submission]) -> None:
        self._fresh = submissions
        self._again: list[tuple[float, int, int, Submission]] = []
        self._numbers = itertools.count()
        self._under_way = 0
        self._lock = threading.Lock()

    def take(self) -> tuple[Submission, int] | None:
        """Return a submission and the number of attempts so far; None when none can be tried now."""
        with self._lock:
            if self._again and self._again[0][0] <= time.monotonic():
                _, _, attempts, found = heapq.heappop(self._again)
            else:
                attempts, fresh = 0, next(self._fresh, None)
                if fresh is None:
                    return None
                found = fresh
            self._under_way += 1
            return found, attempts

    def settle(self) -> None:
        """Note that a submission that was taken needs no more attempts."""
        with self._lock:
            self._under_way -= 1

    def put_back(self, submission: Submission, attempts: int, pause: float) -> None:
        """Have it tried again after a pause."""
        with self._lock:
            self._under_way -= 1
            heapq.heappush(self._again, (time.monotonic() + pause, next(self._numbers), attempts, submission))

    def is_done(self) -> bool:
        """Whether everything that was given out is settled and nothing waits."""
        with self._lock:
            return not self._under_way and not self._again


class Push:
    """``concurrency`` threads that submit; ``on_answer`` is called in them once per order that was taken in."""

    def __init__(
        self,
        connect: Callable[[], DemoClient],
        submissions: Iterator[Submission],
        *,
        concurrency: int,
        on_answer: Callable[[], None],
        check: Callable[[], None] = lambda: None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._connect = connect
        self._agenda = Agenda(submissions)
        self._concurrency = concurrency
        self._on_answer = on_answer
        self._check = check
        self._patience_seconds = patience_seconds
        self._last_answer = time.monotonic()
        self._failure: Exception | None = None
        self._is_over = threading.Event()
        self.attempts_repeated = 0

    def run(self) -> None:
        """Return when every submission is taken in.

        Raises:
            PushError: one was refused for good, or the layer did not take one in for two minutes.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._concurrency)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                self._watch()
                time.sleep(IDLE_SECONDS)
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        self._check()
        if time.monotonic() - self._last_answer > self._patience_seconds:
            message = f"The layer has not taken in an order for {self._patience_seconds:.0f} s."
            raise PushError(message)

    def _work(self) -> None:
        try:
            with closing(self._connect()) as client:
                self._submit_all(client)
        except Exception as error:  # noqa: BLE001  (raised again by run, in the caller's thread)
            self._failure = error
            self._is_over.set()

    def _submit_all(self, client: DemoClient) -> None:
        failures = 0
        while not self._is_over.is_set():
            taken = self._agenda.take()
            if taken is None:
                if self._agenda.is_done():
                    return
                self._is_over.wait(IDLE_SECONDS)
                continue
            submission, attempts = taken
            try:
                answer = client.call(PATH, submission.params, idempotency_key=submission.idempotency_key)
            except (OSError, http.client.HTTPException):
                # Killed in the middle: whether the order was taken in is for the next life to say.
                client.close()
                self._again(submission, attempts, 0.0)
                # The others wait too: it is the layer that is not there, not this order that fails.
                self._is_over.wait(_pause(failures))
                failures += 1
            else:
                failures = 0
                self._judge(submission, attempts, answer)

    def _judge(self, submission: Submission, attempts: int, answer: Answer) -> None:
        if answer.status == OK:
            self._last_answer = time.monotonic()
            self._on_answer()
            self._agenda.settle()
        elif answer.body.get("retryable") or answer.body.get("code") in {"conflict", "outcome_unknown"}:
            self._again(submission, attempts, answer.retry_after_seconds)
        else:
            raise PushError(_refusal(submission, answer))

    def _again(self, submission: Submission, attempts: int, at_least: float) -> None:
        self.attempts_repeated += 1
        self._agenda.put_back(submission, attempts + 1, max(at_least, _pause(attempts)))


def _pause(failures: int) -> float:
    return _jitter.uniform(0, min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(failures, 10)))


def _refusal(submission: Submission, answer: Answer) -> str:
    errors = "; ".join(f"{item['pointer']} {item['message']}" for item in answer.body.get("errors", []))
    reason = errors or answer.body.get("detail", "no reason given")
    return f"The order {submission.reference} was refused with {answer.status}: {reason}"

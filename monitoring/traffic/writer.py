"""The writer of traffic records: beside the request path, in the background, bounded.

Light on purpose: the gateway imports this, so pyarrow is imported when a file is written.
"""

import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from sluice.data.privacy import mask
from sluice.monitoring.traffic.files import hour_of, write_records
from sluice.monitoring.traffic.record import TrafficRecord

FLUSH_TIMEOUT_S = 30.0


class TrafficWriter:
    """Buffer of records that a background thread writes to disk: `write` only masks text and appends.

    Monitoring never takes serving down: records that cannot be written (full disk), that outrun the disk or that come
    after `close` are counted in `lost`, and `last_error` holds the cause.
    """

    def __init__(
        self, folder: Path, flush_every_n: int = 256, flush_every_s: float = 5.0, max_buffered: int = 65_536
    ) -> None:
        if flush_every_n < 1 or flush_every_s <= 0 or max_buffered < flush_every_n:
            raise ValueError(
                f"flush_every_n {flush_every_n} and flush_every_s {flush_every_s} must be positive, "
                f"max_buffered {max_buffered} at least flush_every_n"
            )
        self.folder = Path(folder)
        self.lost = 0
        self.written = 0
        self.last_error = ""
        self._flush_every_n, self._flush_every_s, self._max_buffered = flush_every_n, flush_every_s, max_buffered
        self._buffer: list[TrafficRecord] = []
        self._buffer_lock = threading.Lock()
        self._disk_lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._flush_in_background, name="traffic-writer", daemon=True)
        self._thread.start()

    def write(self, record: TrafficRecord) -> None:
        """Take one record and mask personal data in its text. Thread-safe, touches no disk."""
        scrubbed = replace(
            record,
            request_id=mask(record.request_id)[0],
            prompt_text=mask(record.prompt_text)[0],
            completion_text=mask(record.completion_text)[0],
            embedding=tuple(map(float, record.embedding)),
        )
        with self._buffer_lock:
            if self._closed or len(self._buffer) >= self._max_buffered:
                self.lost += 1
                self.last_error = (
                    "the writer is closed" if self._closed else f"buffer full at {self._max_buffered} records"
                )
                return
            self._buffer.append(scrubbed)
            is_due = len(self._buffer) >= self._flush_every_n
        if is_due:
            self._wake.set()

    def flush(self) -> None:
        """Write the buffered records; on return each is on disk or counted as lost."""
        with self._disk_lock:
            with self._buffer_lock:
                records, self._buffer = self._buffer, []
            groups: dict[tuple[str, str], list[TrafficRecord]] = defaultdict(list)
            for record in records:
                groups[hour_of(record.time), record.version].append(record)
            for (hour, version), group in groups.items():
                error = write_records(self.folder, hour, version, group)
                with self._buffer_lock:
                    if error:
                        self.lost += len(group)
                        self.last_error = error
                    else:
                        self.written += len(group)

    def close(self) -> None:
        """Stop the thread and write the rest. A disk that hangs costs its records, not the shutdown."""
        with self._buffer_lock:
            self._closed = True
        self._wake.set()
        self._thread.join(timeout=FLUSH_TIMEOUT_S)
        if self._thread.is_alive():
            with self._buffer_lock:
                self.lost += len(self._buffer)
                self._buffer.clear()
                self.last_error = f"the disk did not answer within {FLUSH_TIMEOUT_S:.0f} s"
        else:
            self.flush()

    def __enter__(self) -> "TrafficWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _flush_in_background(self) -> None:
        while not self._closed:
            self._wake.wait(timeout=self._flush_every_s)
            self._wake.clear()
            self.flush()

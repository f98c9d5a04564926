"""Where changes come from: a folder of drops, lines on stdin, a Kafka topic. Each yields batches until stopped."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from watchfiles import watch

from feeders.live.changes import Batch, kind_of
from mrse_model.errors import InputError

MAX_CHANGES = 512  # changes of a batch
LINGER = 0.1  # seconds that a batch waits for more, once it has one
DONE, FAILED = "done", "failed"
DROPS = (".parquet", ".jsonl")


class Source(Protocol):
    """A source of changes. What is not committed comes again when the process starts again."""

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        """Batches in order, as they come; ends when `stop` is set or the source does."""


def open_source(place: Path | None = None, *, kafka: str | None = None, topic: str, group: str) -> Source:
    """The source that is named: a folder, "-" for stdin, or the brokers of Kafka (host:port). Raises InputError unless
    it is one of them.
    """
    if (place is None) == (kafka is None):
        raise InputError("must have exactly one source of changes", fix="Give a folder, - for stdin, or --kafka")
    if kafka is not None:
        return Topic(kafka, topic, group)
    return Lines(sys.stdin.buffer) if str(place) == "-" else Folder(place or Path())


class Folder:
    """A folder into which files are dropped whole (written elsewhere and renamed, or with a name that starts with a
    dot until then): Parquet, or JSON lines. What is done goes to done/, what is not all well to failed/.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in (DONE, FAILED):
            (path / folder).mkdir(parents=True, exist_ok=True)

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        # The watch is there before the first listing, so that no drop falls between them.
        changes = watch(self.path, stop_event=stop, recursive=False, debounce=100, step=50, yield_on_timeout=True,
                        rust_timeout=500, raise_interrupt=False)  # fmt: skip
        while not stop.is_set():
            for written, file in sorted(self._drops()):
                if not stop.is_set():
                    yield from self._batches_of(file, written / 1e9, stop)
            next(changes, None)

    def _drops(self) -> Iterator[tuple[int, Path]]:
        """The files that lie there, each with its time, nanoseconds."""
        for file in self.path.iterdir():
            if file.suffix in DROPS and not file.name.startswith(".") and file.is_file():
                with suppress(FileNotFoundError):  # it was taken away again
                    yield file.stat().st_mtime_ns, file

    def _batches_of(self, file: Path, since: float, stop: threading.Event) -> Iterator[Batch]:
        all_well: list[bool] = []

        def finished(well: bool) -> None:
            all_well.append(well)

        if file.suffix == ".parquet":
            try:
                yield Batch(file=(kind_of(file), file), commit=finished, since=since)
            except InputError as error:
                yield Batch(unreadable=[(file.name, str(error))], commit=finished, since=since)
        else:
            with file.open("rb") as lines:
                batch = Batch(commit=finished, since=since)
                for line in lines:
                    if line.strip():
                        batch.add_line(line, file.name)
                    if len(batch.changes) >= MAX_CHANGES:
                        yield batch
                        if stop.is_set():
                            return  # the whole file is read again at the next start
                        batch = Batch(commit=finished, since=since)
                yield batch
        folder = self.path / (DONE if all(all_well) else FAILED)
        file.replace(folder / file.name)


class Lines:
    """JSON lines of a stream. There is nothing to commit: whoever writes them sends them again after a crash."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lines = stream, queue.Queue[bytes | None](maxsize=4 * MAX_CHANGES)

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        threading.Thread(target=self._read, daemon=True).start()
        ended = False
        while not ended and not stop.is_set():
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                continue
            batch, until = Batch(since=time.time()), time.monotonic() + LINGER
            while line is not None:
                if line.strip():
                    batch.add_line(line, "stdin")
                if len(batch.changes) >= MAX_CHANGES or (wait := until - time.monotonic()) <= 0:
                    break
                try:
                    line = self._lines.get(timeout=wait)
                except queue.Empty:
                    break
            ended = line is None
            yield batch

    def _read(self) -> None:
        for line in self._stream:
            self._lines.put(line)
        self._lines.put(None)


class Topic:
    """A Kafka topic whose messages are changes as JSON, keyed by item or user, so that a partition has them in order.
    Offsets are committed when every change before them has its answer. Extra: mrse-vespa[kafka].
    """

    def __init__(self, brokers: str, topic: str, group: str = "mrse-watch", **settings: Any) -> None:
        """settings: further ones of librdkafka, such as security_protocol="SASL_SSL"."""
        from confluent_kafka import Consumer

        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        from confluent_kafka import KafkaError, TopicPartition

        self._consumer.subscribe([self._topic])
        try:
            while not stop.is_set():
                messages = self._consumer.consume(MAX_CHANGES, timeout=LINGER)
                batch, offsets = Batch(since=time.time()), dict[int, int]()
                for message in messages:
                    if (error := message.error()) is not None:
                        if error.code() in (KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART):
                            continue
                        if error.fatal():
                            raise InputError(f"Kafka: {error.str()}", field="--kafka")
                        continue
                    where = f"{self._topic}/{message.partition()}@{message.offset()}"
                    batch.add_line(message.value() or b"", where)
                    offsets[message.partition() or 0] = (message.offset() or 0) + 1
                    if (made := message.timestamp()[1]) > 0:
                        batch.since = min(batch.since, made / 1000)
                if offsets:
                    ends = [TopicPartition(self._topic, partition, end) for partition, end in offsets.items()]
                    batch.commit = partial(self._commit, ends)
                    yield batch
        finally:
            self._consumer.close()

    def _commit(self, ends: list[Any], all_well: bool) -> None:
        """What was refused is written down, so the offsets go on whether all was well or not."""
        from confluent_kafka import KafkaException

        try:
            self._consumer.commit(offsets=ends, asynchronous=False)
        except KafkaException as error:  # a batch took so long that the group gave the partition away: it is read again
            if error.args[0].fatal():
                raise InputError(f"Kafka: {error.args[0].str()}", field="--kafka") from None

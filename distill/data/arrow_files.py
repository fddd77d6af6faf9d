"""Files in Arrow's own format: what pandas' ``to_feather`` writes, and the streams of the library datasets."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import feather

FILE, FIRST_VERSION = b"ARROW1", b"FEA1"
"""How a file of random access and one of feather's first version begin; a stream begins with its length."""


def arrow_file(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema of a feather or arrow file and its rows, in parts as they were written.

    Raises:
        pyarrow.ArrowException: it is torn, or no such file.
    """
    with open(path, "rb") as file:
        start = file.read(len(FILE))
    if start.startswith(FIRST_VERSION):
        table = feather.read_table(path)
        return table.schema, _checked(iter(table.to_batches()))
    source = pa.OSFile(str(path))
    if start == FILE:
        reader = pa.ipc.open_file(source)
        return reader.schema, _checked(reader.get_batch(number) for number in range(reader.num_record_batches))
    stream = pa.ipc.open_stream(source)
    return stream.schema, _checked(iter(stream))


def _checked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Look whether every length and offset is possible: Arrow takes them from the file as they are."""
    for batch in batches:
        batch.validate(full=True)
        yield batch

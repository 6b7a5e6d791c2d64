"""Rows as an Apache Parquet file, written as they come: a row group is all that is ever in memory.

pyarrow is imported when the first file is asked for: loading it costs half a second and 60 MB.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gateway.cdr.call_detail import CallDetail
from gateway.cdr.columns import COLUMNS, SCHEMA_VERSION, Kind
from gateway.cdr.export import Rows

MEDIA_TYPE = "application/vnd.apache.parquet"
ROW_GROUP = 10_000


async def as_parquet(rows: Rows, *, group: int = ROW_GROUP) -> AsyncIterator[bytes]:
    """A Parquet file in pieces: times as UTC timestamps in milliseconds, `detail` as JSON text.

    group: rows a row group; the footer grows by one entry for each
    """
    out = _Pieces()
    writer = await asyncio.to_thread(_open, out)
    waiting: list[CallDetail] = []
    try:
        async for chunk in rows:
            waiting += chunk
            while len(waiting) >= group:
                await asyncio.to_thread(_write, writer, waiting[:group])
                del waiting[:group]
                yield out.take()
        if waiting:
            await asyncio.to_thread(_write, writer, waiting)
    finally:
        await asyncio.to_thread(writer.close)
    yield out.take()


class _Pieces:
    """A file that is only ever written to its end, and read away meanwhile."""

    closed = False

    def __init__(self) -> None:
        self._data = bytearray()
        self._taken = 0

    def write(self, data: Any) -> int:
        self._data += data
        return len(data)

    def tell(self) -> int:
        return self._taken + len(self._data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        data = bytes(self._data)
        self._taken += len(data)
        self._data.clear()
        return data


def _open(out: _Pieces) -> Any:
    import pyarrow
    import pyarrow.parquet

    kinds = {
        Kind.TEXT: pyarrow.string(),
        Kind.TIME: pyarrow.timestamp("ms", tz="UTC"),
        Kind.INTEGER: pyarrow.int64(),
        Kind.REAL: pyarrow.float64(),
        Kind.JSON: pyarrow.string(),
    }
    schema = pyarrow.schema(
        [
            pyarrow.field(
                column.name,
                kinds[column.kind],
                nullable=column.nullable,
                metadata={"unit": column.unit, "rule": column.rule},
            )
            for column in COLUMNS
        ],
        metadata={"schema_version": str(SCHEMA_VERSION)},
    )
    sink = pyarrow.PythonFile(out, mode="w")
    return pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd")


def _write(writer: Any, rows: Sequence[CallDetail]) -> None:
    import pyarrow

    schema = writer.schema
    arrays = [
        pyarrow.array(
            [_value(column.kind, getattr(row, column.name)) for row in rows], schema.field(place).type
        )
        for place, column in enumerate(COLUMNS)
    ]
    writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _value(kind: Kind, value: Any) -> Any:
    if kind is Kind.JSON:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if kind is Kind.TEXT and value is not None:
        return str(value)
    return value

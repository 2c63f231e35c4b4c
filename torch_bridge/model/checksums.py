"""The checksums of the records of a zip archive, after the records were written over in place."""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, NamedTuple, cast

_DESCRIPTOR = b"PK\7\x08"
_LOCAL_SIZE = 30  # bytes before the name
_CENTRAL_SIZE = 46
_HAS_DESCRIPTOR = 8  # flag of a record whose checksum stands behind its values


class Record(NamedTuple):
    """A record of an archive: where its central entry and its local header begin, and where its values lie."""

    entry: int
    header: int
    first: int
    last: int


def put_checksums_right(path: Path, memory: mmap.mmap, changed: Collection[int]) -> None:
    """Compute anew the checksums of the records that hold changed bytes, and write them where they stand.

    Parameters
    ----------
    path : Path
        What the archive is called in an error.
    memory : mmap.mmap
        The archive, with uncompressed records; modified in place.
    changed : collection of int
        Places of changed bytes, at least one in each changed record.

    Raises
    ------
    OSError
        If a place is in no record.
    """
    records = _records(memory)
    owners = {next((r for r in records if r.first <= place < r.last), None) for place in changed}
    if None in owners:
        raise OSError(f"{path} could not be written: its archive has values outside its records.")
    for record in owners - {None}:
        assert record is not None
        _write_checksum(memory, record)


def _records(memory: mmap.mmap) -> list[Record]:
    with zipfile.ZipFile(cast(IO[bytes], memory)) as archive:  # which it reads and seeks
        entry, headers = archive.start_dir, [(member.header_offset, member.file_size) for member in archive.infolist()]
    records = []
    for header, size in headers:
        name, extra = struct.unpack_from("<HH", memory, header + _LOCAL_SIZE - 4)
        first = header + _LOCAL_SIZE + name + extra
        records.append(Record(entry, header, first, first + size))
        entry += _CENTRAL_SIZE + sum(struct.unpack_from("<HHH", memory, entry + 28))
    return records


def _write_checksum(memory: mmap.mmap, record: Record) -> None:
    with memoryview(memory) as view, view[record.first : record.last] as values:
        checksum = zlib.crc32(values)
    (flags,) = struct.unpack_from("<H", memory, record.header + 6)
    if flags & _HAS_DESCRIPTOR:
        signed = memory[record.last : record.last + 4] == _DESCRIPTOR
        struct.pack_into("<I", memory, record.last + 4 * signed, checksum)
    else:
        struct.pack_into("<I", memory, record.header + 14, checksum)
    struct.pack_into("<I", memory, record.entry + 16, checksum)

"""A long text in a file, read block by block: no more of it is in memory than one block."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from distill.data.source_errors import told_in_one_line
from distill.data.text_files import find_encoding, open_text
from distill.utils.errors import UserError

CHARACTERS_PER_READ = 100_000


@dataclass(frozen=True)
class TextPart:
    """A stretch of a text file, with \\n at the ends of its lines; every loop over it reads the file anew."""

    path: Path
    encoding: str
    start: int
    end: int
    """Both counted in characters of the file."""

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[str]:
        """Yield blocks of whole lines, of about `CHARACTERS_PER_READ`; a longer line is one block."""
        pieces: list[str] = []
        size = 0
        for piece in self._pieces():
            size += len(piece)
            cut = piece.rfind("\n") + 1
            if size < CHARACTERS_PER_READ or not cut:
                pieces.append(piece)
                continue
            yield "".join([*pieces, piece[:cut]])
            pieces, size = [piece[cut:]], len(piece) - cut
        if size:
            yield "".join(pieces)

    def _pieces(self) -> Iterator[str]:
        with told_in_one_line(self.path, self.path), open_text(self.path, self.encoding) as file:
            left = self.start
            while left and (skipped := len(file.read(min(left, CHARACTERS_PER_READ)))):
                left -= skipped
            left = len(self)
            while left and (piece := file.read(min(left, CHARACTERS_PER_READ))):
                left -= len(piece)
                yield piece


@dataclass(frozen=True)
class TextParts:
    """What a language model trains on, selects on and reports on."""

    train: TextPart
    held_out: TextPart
    validation: TextPart


def open_part(path: Path) -> TextPart:
    """Return all of a text file, compressed or not, having looked through it once.

    Raises:
        UserError: it is empty, binary, or of an unknown encoding.
    """
    characters, is_blank = 0, True
    with told_in_one_line(path, path):
        encoding = find_encoding(path)
        with open_text(path, encoding) as file:
            while piece := file.read(CHARACTERS_PER_READ):
                if "\0" in piece:
                    place = characters + piece.index("\0") + 1
                    raise UserError(f"{path} holds a NUL character, the {place:,}th: it is no text file, or torn")
                is_blank = is_blank and not piece.strip()
                characters += len(piece)
    if is_blank:
        raise UserError(f"{path} is empty; give a file with text")
    return TextPart(path, encoding, 0, characters)


def cut_end(part: TextPart, fraction: float) -> tuple[TextPart, TextPart]:
    """Cut about the last ``fraction`` off a text, behind the end of a line where one is near, and return both."""
    place = part.start + round(len(part) * (1 - fraction))
    near = min(part.end, place + max(1, round(len(part) * fraction / 2)))
    seen = place
    for piece in replace(part, start=place, end=near)._pieces():
        line = piece.find("\n")
        if line >= 0:
            place = seen + line + 1
            break
        seen += len(piece)
    return replace(part, end=place), replace(part, start=place)

"""A bar on a terminal takes one line, however long its text is."""

import io
import os

import pytest

from stm_models.progress import Progress

NOTES = ["", "loss 0.0123", "loss 0.0123, validation 0.0456, best 0.0432 at 17", "n" * 200]


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return 2


def pieces(stream, note, label="train conv"):
    with Progress(4000, label, "image", stream=stream) as progress:
        for _ in range(4000):
            progress.update(note=note)
    first, *rest = stream.getvalue().removesuffix("\n").split("\r\x1b[K")
    assert first == ""
    assert rest
    return rest


@pytest.mark.parametrize("columns", [20, 80, 200])
@pytest.mark.parametrize("note", NOTES)
def test_it_fits_on_one_line(columns, note, monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((columns, 24)))
    for piece in pieces(Terminal(), note):
        assert len(piece) < columns
        assert piece.startswith(("train conv: ", "[###", "[..."))


def test_bar_and_time_spent_give_way_to_what_counts(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((80, 24)))
    last = pieces(Terminal(), "loss 0.0123, best at 17")[-1]
    assert last.startswith("train conv: 4000/4000 images, ")
    assert last.endswith(", loss 0.0123, best at 17")
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((200, 24)))
    assert pieces(Terminal(), "loss 0.0123")[-1].startswith("[########################] train conv: 4000/4000")


def test_a_terminal_that_does_not_tell_has_80_columns(monkeypatch):
    class Mute(Terminal):
        fileno = io.StringIO.fileno

    def unknown(number):
        raise OSError("not a terminal")

    assert max(map(len, pieces(Mute(), NOTES[-1]))) == 79
    monkeypatch.setattr(os, "get_terminal_size", unknown)
    assert max(map(len, pieces(Terminal(), NOTES[-1]))) == 79
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((0, 0)))
    assert max(map(len, pieces(Terminal(), NOTES[-1]))) == 79

"""Commands: what a user can fix becomes one line and exit status 2, and anything else stays what it is."""

import errno

import pytest

from llmva.core.errors import InputError, command, first_line
from llmva.prompts.public.build import MissingSetsError


def outcome_of(error, capsys):
    @command
    def main():
        raise error

    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.csv: label: empty; fill it in"), "error: a.csv: label: empty; fill it in\n"),
        # A name may hold anything.
        (InputError("a\nb\x1b[2J.csv: no such file"), "error: a?b?[2J.csv: no such file\n"),
        (MissingSetsError("2 sets:\n  one\n  tw\x1bo"), "error: 2 sets:\n  one\n  tw?o\n"),
        (
            OSError(errno.ENOSPC, "", "a.csv"),
            "error: a.csv: No space left on device; make room and run again\n",
        ),
        (OSError(errno.EFBIG, ""), "error: the disk: File too large; make room and run again\n"),
        (
            OSError(errno.EROFS, "", "/x"),
            "error: /x: Read-only file system; fix the disk, or name another place\n",
        ),
    ],
)
def test_what_a_user_can_fix_is_one_line(error, line, capsys):
    assert outcome_of(error, capsys) == (2, line)


@pytest.mark.parametrize(
    "error", [ValueError("a mistake of ours"), FileNotFoundError(errno.ENOENT, "", "a"), OSError("no number")]
)
def test_other_errors_are_passed_on(error):
    @command
    def main():
        raise error

    with pytest.raises(type(error)):
        main()


def test_a_stop_by_hand_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("logging.disable", lambda: None)
    assert outcome_of(KeyboardInterrupt(), capsys) == (130, "stopped; run it again, and it goes on where it was\n")


@pytest.mark.parametrize("name", ["LLMVA_ROOT", "LLMVA_OUT"])
@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_root_that_is_a_file_is_one_line_of_every_command(tmp_path, capsys, monkeypatch, name, below):
    (tmp_path / "a.csv").write_text("")
    monkeypatch.setenv(name, str(tmp_path / "a.csv" / below))
    with pytest.raises(SystemExit) as done:
        command(lambda: pytest.fail("ran"))()
    line = f"error: {name}: {tmp_path / 'a.csv'} is no folder; name one, or leave {name} out\n"
    assert (done.value.code, capsys.readouterr().err) == (2, line)


@pytest.mark.parametrize("root", ["", "new/folder"])
def test_a_root_that_is_empty_or_still_to_be_made_is_none_to_complain_of(monkeypatch, root):
    monkeypatch.setenv("LLMVA_ROOT", root)
    with pytest.raises(SystemExit) as done:
        command(lambda: None)()
    assert done.value.code == 0


def test_a_command_that_ends_well_has_status_zero():
    with pytest.raises(SystemExit) as done:
        command(lambda: None)()
    assert done.value.code == 0


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("a\nb"), "a"), (ValueError(" \n"), "ValueError"), (KeyError(), "KeyError")]
)
def test_an_error_has_a_first_line_also_where_it_says_nothing(error, line):
    assert first_line(error) == line

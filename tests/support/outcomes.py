"""What a command of the tests came to: exit code, standard output and what it said on stderr."""

import json


def answer(result):
    """Return the JSON object that a command printed."""
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def refused(result, *words):
    """Expect a user's mistake: one line with these words, exit code 2 and no output; return all that was said."""
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert out == ""
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0], lines[0]
    return err

"""The repository itself: nothing of anybody's machine in it, one version, and no documented command that does not exist."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import shortlist
from shortlist.cli import build_parser

ROOT = Path(__file__).parents[1]
# [.] and [-] for . and -: so this file does not hold what it looks for.
HOSTS = (
    r"index[-]url|find[-]links|trusted[-]host|(?:pypi|pythonhosted|npmjs|golang|deb[.]debian|download[.]pytorch)[.]org"
    r"|\bmirrors?[.][a-z]|artifac[t]ory"
)
FOLDERS = r"(?<![\w.$)}~-])/(?:work|root|home|Users|mnt|opt|builds)/\S"
FORBIDDEN = re.compile(f"{HOSTS}|{FOLDERS}", re.IGNORECASE)


def repository_files() -> list[Path]:
    """Every file that is tracked or would be by `git add .`."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: git says which files belong to the repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file()]


def forbidden_in(text: str) -> list[str]:
    """The lines that name a package host or a folder of somebody's machine, with their numbers."""
    return [f"{number}: {line.strip()[:100]}" for number, line in enumerate(text.splitlines(), start=1) if FORBIDDEN.search(line)]


def documented_commands(markdown: str) -> Iterator[list[str]]:
    """The arguments of each `shortlist ...` line of the fenced blocks (a prompt or `.venv/bin/` may stand before it), up to a pipe."""
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if words.startswith("shortlist "):
                yield _first_command(words)


def _first_command(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)[1:]
    ends = [place for place, word in enumerate(words) if re.fullmatch(r"[|&;<>()]+", word)]
    return words[: ends[0]] if ends else words


def refusal(parser: argparse.ArgumentParser, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says against these arguments; empty where it takes them."""
    try:
        parser.parse_args(arguments)
    except SystemExit as end:
        said = capsys.readouterr().err.strip().splitlines()
        return said[-1] if end.code else ""
    return ""


def test_no_file_names_a_package_host_or_a_folder_of_somebodys_machine() -> None:
    found = []
    for path in repository_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}:{line}" for line in forbidden_in(text)]
    assert found == [], "say `pip install NAME` and use paths relative to the repository"


@pytest.mark.parametrize(
    "line",
    [
        "pip install --index" + "-url X numpy",
        "see https://pypi" + ".org/project/x",
        "https://files.pythonhosted" + ".org/a.whl",
        "https://mirror" + ".example.net/debian",
        "cd /" + "home/ann/shortlist",
        'open("/' + 'work/main/x")',
        "path=/" + "root/.cache",
    ],
)
def test_the_check_sees_hosts_and_machine_paths(line: str) -> None:
    assert forbidden_in(f"fine\n{line}\n") == [f"2: {line}"]


@pytest.mark.parametrize(
    "line", ["https://grouplens.org/datasets", "demo/work/x", "/tmp/x /etc/hostname", "$(ROOT)/home/x", "as in a mirror. So", "a/b"]
)
def test_the_check_passes_public_addresses_and_relative_paths(line: str) -> None:
    assert forbidden_in(line) == []


def test_the_version_is_the_changelogs_top_version() -> None:
    top = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert top is not None and top[1] == shortlist.__version__


def test_commands_are_read_from_fenced_blocks_alone() -> None:
    block = "```sh\n$ shortlist a 'b c' \\\n   --d  # why\nshortlist e | head\nshortlisted\nls\n```\n"
    markdown = f"shortlist not-me\n{block}shortlist nor-me\n```\n.venv/bin/shortlist f > g\n```\n"
    assert list(documented_commands(markdown)) == [["a", "b c", "--d"], ["e"], ["f"]]


def test_every_command_of_the_readme_is_one_that_the_program_takes(capsys: pytest.CaptureFixture[str]) -> None:
    commands = list(documented_commands((ROOT / "README.md").read_text(encoding="utf-8")))
    assert commands, "README.md must show at least one `shortlist ...` line in a fenced block"
    refused = {shlex.join(command): said for command in commands if (said := refusal(build_parser(), command, capsys))}
    assert refused == {}


def test_every_command_of_the_makefile_is_one_that_the_program_takes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = re.findall(r"^\t@?\$\(BIN\)/(shortlist .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    commands = [_first_command(line) for line in lines]
    assert [command[0] for command in commands] == ["fetch", "check", "evaluate", "publish", "recommend", "study", "study"]
    refused = {shlex.join(command): said for command in commands if (said := refusal(build_parser(), command, capsys))}
    assert refused == {}


def test_every_example_of_the_help_is_one_that_the_program_takes(capsys: pytest.CaptureFixture[str]) -> None:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        example = re.search(r"shortlist .*", parser.epilog or "")
        assert example is not None, f"`shortlist {name} --help` must end with an example"
        assert refusal(build_parser(), _first_command(example[0]), capsys) == ""

"""apt with a state of its own: the machine's sources and keys, but lists and caches in a private folder.

The system's apt state is neither read nor written, no hook of the system runs, and no right beyond writing the folder is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shortlist.errors import FetchError

APT_HELPER = "/usr/lib/apt/apt-helper"  # not on the PATH by design

# Lists can only be emptied in a file that is read after the system's own, hence not by `-o`.
SETTINGS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::Languages;
Acquire::Languages {{ "en"; }};
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
"""
WANTED = (("deb", "Packages"), ("deb", "Translations"))
TARGET = re.compile(r"^Acquire::IndexTargets::(deb|deb-src)::([^:]+)::MetaKey ", re.MULTILINE)


@dataclass(frozen=True)
class PrivateApt:
    """apt's commands over the state in `folder`."""

    folder: Path

    def options(self) -> list[str]:
        """The command line options that keep apt inside the folder."""
        settings = {
            "Dir::State": self.folder,
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",  # asked of root only: apt's own user may not enter this folder
        }
        return ["-c", str(self.folder / "apt.conf"), *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]

    def update(self) -> list[str]:
        """apt's complaints, line by line, after it has brought the private lists up to date; empty where all went well."""
        run = subprocess.run(
            [_program("apt-get"), "-qq", *self.options(), "update"], capture_output=True, text=True, check=False, env=_plain()
        )
        complaints = run.stderr.strip().splitlines()
        if run.returncode != 0 and not complaints:
            complaints = [f"apt-get update ended with exit code {run.returncode} and said nothing"]
        return complaints

    def lines(self, program: str, *arguments: str) -> Iterator[str]:
        """The lines that one of apt's programs prints. Raises FetchError where it ends with an error."""
        command = [_program(program), *self.options(), *arguments]
        with tempfile.TemporaryFile() as complaints:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, env=_plain()) as run:
                assert run.stdout is not None
                for line in run.stdout:
                    yield _text(line)
            if run.returncode != 0:
                complaints.seek(0)
                said = complaints.read().decode("utf-8", errors="replace").strip()
                raise FetchError(
                    f"{program} {arguments[0]} must work; got exit code {run.returncode}: {said or 'no message'}; try it by hand"
                )

    def list_files(self, created_by: str) -> list[str]:
        """The downloaded files of one kind: `Packages` or `Translations`."""
        chosen = self.lines("apt-get", "indextargets", "--format", "$(FILENAME)", f"Created-By: {created_by}", "Target-Of: deb")
        return [file for file in chosen if Path(file).is_file()]

    def releases(self) -> list[str]:
        """The archives read, as `origin codename component`, without the hosts they came from."""
        form = "$(ORIGIN) $(CODENAME) $(COMPONENT)"
        return sorted(set(self.lines("apt-get", "indextargets", "--format", form, "Created-By: Packages", "Target-Of: deb")))


def open_private_apt(folder: Path) -> PrivateApt:
    """apt over `folder`, which is made ready. Raises FetchError where the machine has no apt."""
    folder = folder.resolve()
    for part in ("lists/partial", "cache"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("")  # nothing is installed here: what the machine has installed must not show in the data
    (folder / "apt.conf").write_text(_settings(_system_settings()))
    return PrivateApt(folder)


def stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The paragraphs of a deb822 stream as field -> value; a value of several lines keeps its line ends and loses one leading blank.

    Raises FetchError for a line that is neither a field, nor the continuation of one, nor blank.
    """
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t" and name:
            fields[name] += "\n" + line[1:]
        else:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise FetchError(f"a package list must hold fields as `Name: value`; got {line!r}; run again to fetch the list anew")
            fields[name] = value.strip()
    if fields:
        yield fields


def _system_settings() -> str:
    run = subprocess.run([_program("apt-config"), "dump"], capture_output=True, text=True, check=False, env=_plain())
    if run.returncode != 0:
        raise FetchError(f"apt-config dump must work; got exit code {run.returncode}: {run.stderr.strip()}; try it by hand")
    return run.stdout


def _settings(dump: str) -> str:
    """The text of a private apt.conf: this machine's architecture alone, and no index but packages and their descriptions."""
    architecture = re.search(r'^APT::Architecture "([a-z0-9-]+)";$', dump, re.MULTILINE)
    if architecture is None:
        raise FetchError("apt-config dump must name APT::Architecture; it does not; try `dpkg --print-architecture` by hand")
    others = [f"{kind}::{name}" for kind, name in TARGET.findall(dump) if (kind, name) not in WANTED]
    off = "".join(f'Acquire::IndexTargets::{other}::DefaultEnabled "false";\n' for other in others)
    return SETTINGS.format(architecture=architecture[1]) + off


def _program(name: str) -> str:
    found = shutil.which(name) or (APT_HELPER if name == "apt-helper" and os.access(APT_HELPER, os.X_OK) else None)
    if found is None:
        raise FetchError(f"debian needs a machine with apt (Debian, Ubuntu and their like); no {name} was found; run it on such a machine")
    return found


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise FetchError(f"a package list must be UTF-8; got {line!r} ({error}); run again to fetch the list anew") from None


def _plain() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8"}

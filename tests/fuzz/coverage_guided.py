"""Fuzz one target for some minutes, guided by which code each input reaches.

    python -m tests.fuzz.coverage_guided --target head --minutes 10 --corpus /some/directory

The corpus grows in a directory for the target; what breaks a property is written there as ``crash-...``, and
``--replay FILE`` runs it again.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

MISSING = "atheris is not installed: pip install atheris -e '.[dev]'"

TARGETS_MODULE = "tests.fuzz.targets"

# What a single input may take; the slowest takes milliseconds.
INPUT_S = 20
MEMORY_MIB = 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.coverage_guided", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--target", required=True, help="a name of tests/fuzz/targets.py; a wrong one lists them")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"), help="a directory; one in it per target")
    parser.add_argument("--replay", type=Path, help="run the check on this file alone")
    options = parser.parse_args()
    if options.replay is not None:
        target = _find(parser, options.target)
        try:
            data = options.replay.read_bytes()
        except OSError as error:
            parser.error(f"{options.replay} cannot be read: {error.strerror}")
        target.check(data)
        return
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.exit(MISSING)
    with atheris.instrument_imports(include=["pagi_trio"]):
        target = _find(parser, options.target)
    corpus = options.corpus / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = options.corpus / f"{options.target}.dict"
    # libFuzzer takes no dictionary without a word.
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words or (b"\0",)))
    arguments = [
        f"-max_total_time={int(options.minutes * 60)}",
        f"-max_len={target.longest}",
        f"-dict={words}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={corpus}/",
        "-print_final_stats=1",
        "-reload=0",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], target.check)
    atheris.Fuzz()


def _find(parser: argparse.ArgumentParser, name: str) -> Target:
    targets: dict[str, Target] = importlib.import_module(TARGETS_MODULE).TARGETS
    if name not in targets:
        parser.error(f"there is no {name}, but {', '.join(targets)}")
    return targets[name]


def _quoted(word: bytes) -> str:
    """Write a word as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()

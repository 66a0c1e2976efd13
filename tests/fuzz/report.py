"""What a run found, for a terminal and for a document."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fuzz.attacks import ATTACKS
from tests.fuzz.run import Result
from tests.fuzz.trial import Tally
from tests.fuzz.vitals import Growth

BEGIN: Final = "<!-- fuzz: begin -->\n"
END: Final = "<!-- fuzz: end -->\n"
SHOWN_ANSWERS: Final = 6
HEADS: Final = ("attack", "what", "examples", "answers", "slowest", "findings")
GROWTH_HEADS: Final = ("process", "quantity", "first third", "last third", "may grow by")


def what_of(name: str) -> str:
    """Return what an attack does."""
    return ATTACKS[name].what if name in ATTACKS else "the decoder alone, in its own process"


def answers_of(tally: Tally) -> str:
    """Return how often there was which answer, the most frequent first."""
    common = tally.answers.most_common()
    shown = [f"{name} {count:,}" for name, count in common[:SHOWN_ANSWERS]]
    rest = sum(count for _, count in common[SHOWN_ANSWERS:])
    return ", ".join([*shown, *([f"others {rest:,}"] if rest else [])])


def cells(tally: Tally) -> tuple[str, ...]:
    """Return a row of the table."""
    return (
        tally.name,
        what_of(tally.name),
        f"{tally.examples:,}",
        answers_of(tally),
        f"{tally.slowest_s:.2f} s",
        str(len(tally.findings)),
    )


def summary(result: Result, *, seconds: float, seed: int) -> str:
    """Return what is true of the whole run, in sentences."""
    examples = sum(tally.examples for tally in result.tallies.values())
    return (
        f"{seconds:.0f} s of attacks with seed {seed}, {result.rounds} rounds: "
        f"{examples:,} examples, {len(result.findings())} findings. "
        f"A good caller made {result.good_calls:,} calls meanwhile; "
        f"the slowest was answered after {result.slowest_good_s:.2f} s. "
        f"The decoder alone took at most {result.decoder_peak_mib:,} MiB. "
        f"Jobs: {', '.join(f'{count:,} {name}' for name, count in sorted(result.totals.items()))}."
    )


def text_report(result: Result, *, seconds: float, seed: int) -> str:
    """Return the report for a terminal."""
    lines = [""]
    for tally in result.tallies.values():
        name, _, examples, answers, slowest, findings = cells(tally)
        lines.append(f"{name:10} {examples:>8} examples  slowest {slowest:>8}  findings {findings}")
        lines.append(f"{'':10} {answers}")
    lines.append("")
    for growth in result.growths:
        lines += ["{:10} {:9} {:>7} -> {:>7}, may grow by {}".format(*row) for row in rows(growth)]
    lines.append("")
    for finding in result.findings():
        lines += finding.lines()
    return "\n".join([*lines, summary(result, seconds=seconds, seed=seed)])


def rows(growth: Growth) -> Sequence[tuple[str, ...]]:
    """Return the rows of one process; none if it was not measured."""
    return growth.rows() if growth.seen else ()


def table(heads: Sequence[str], body: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Return a table for a document."""
    marks = ["--:" if column in right else "---" for column in range(len(heads))]
    lines = [heads, marks, *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_markdown(path: Path, result: Result, *, seconds: float, seed: int) -> None:
    """Put the figures between their two marks in a document."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    attacks = table(HEADS, [cells(tally) for tally in result.tallies.values()], (2, 4, 5))
    grown = [row for growth in result.growths for row in rows(growth)]
    growths = table(GROWTH_HEADS, grown, (2, 3, 4))
    text = "\n\n".join([summary(result, seconds=seconds, seed=seed), attacks, growths])
    path.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{after}")

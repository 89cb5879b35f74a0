"""Figures, goals, and how both are shown.

Owns the shape of the JSON. Never measures.
"""

import dataclasses
import statistics

OURS = "Skein"


@dataclasses.dataclass
class Figure:
    """One line of a table: what it is, its unit, and a number for each that was measured."""
    name: str
    unit: str
    values: dict
    goals: list = dataclasses.field(default_factory=list)

    def reach(self, words, bound, of=None, at_least=False):
        """Adds a goal: ours against a bound, or against a multiple of a peer's figure."""
        ours, base = self.values.get(OURS), 1 if of is None else self.values.get(of)
        met = None
        if ours is not None and base is not None:
            met = ours >= bound * base if at_least else ours <= bound * base
        self.goals.append({"goal": words, "met": met})
        return self


@dataclasses.dataclass
class Section:
    """One table: a title, the peers in the order of their columns, and the figures."""
    title: str
    peers: list
    figures: list
    notes: list = dataclasses.field(default_factory=list)
    missing: list = dataclasses.field(default_factory=list)

    def name_missing(self, peers):
        """Says in the table which of its peers are not installed, and how to install them."""
        self.missing = [name for name in self.peers if name in peers]
        self.notes += [f"{name} is missing; to have it: `{peers[name]}`" for name in self.missing]

    def markdown(self):
        columns = [name for name in [*self.peers, OURS]]
        ratios = [name for name in self.peers
                  if any(name in figure.values and OURS in figure.values
                         for figure in self.figures)]
        head = [self.title, *columns, *(f"÷ {name}" for name in ratios), "goal"]
        lines = [head]
        for figure in self.figures:
            line = [f"{figure.name}, {figure.unit}"]
            line += ["missing" if name in self.missing else shown(figure.values.get(name))
                     for name in columns]
            line += [self.ratio(figure, name) for name in ratios]
            marks = {True: "met", False: "**missed**", None: "not measured"}
            line.append("; ".join(f"{goal['goal']}: {marks[goal['met']]}"
                                  for goal in figure.goals))
            lines.append(line)
        widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
        rows = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
                for line in lines]
        rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join([*rows, *(f"\n{note}" for note in self.notes)])

    @staticmethod
    def ratio(figure, name):
        ours, theirs = figure.values.get(OURS), figure.values.get(name)
        return f"{ours / theirs:.2f}" if ours is not None and theirs else "–"


def shown(value):
    """A figure with three digits that mean something."""
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def medians(rounds):
    """From a list of dicts with the same fields to one dict of medians."""
    return {field: statistics.median(one[field] for one in rounds) for field in rounds[0]}


def percentile(samples, share):
    """By the nearest rank."""
    ordered = sorted(samples)
    return ordered[max(1, -(-len(ordered) * share // 100)) - 1]

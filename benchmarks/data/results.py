"""All that one run of the benchmark measured; kept as JSON, so that the page can be written again without measuring."""

from benchmarks.data.blocks import Trained
from benchmarks.data.clock import Rate
from benchmarks.data.neighbours import Merges, Recall
from benchmarks.data.scale import Size
from benchmarks.data.workers import Builds
from benchmarks.report import Timed


class DataResults(Timed):
    """Figures of one run on one machine."""

    machine: str
    text: str
    """Description of the text that is measured on."""
    runs: int
    """Runs of everything but the sizes and what is counted."""
    filters: dict[str, Rate] = {}
    minhash: dict[str, Rate] = {}
    encoding: dict[str, Rate] = {}
    training: list[Trained] = []
    others: dict[str, Rate] = {}
    extraction: dict[str, Rate] = {}
    formats: dict[str, Rate] = {}
    recall: list[Recall] = []
    merges: Merges = Merges(documents=0, removed=0, false=0)
    builds: dict[str, Builds] = {}
    build_bytes: int = 0
    """Raw text of those builds."""
    sizes: dict[int, list[Size]] = {}
    """By number of workers, from the smallest on; the first serves to subtract the start-up from the others."""
    session: str = ""

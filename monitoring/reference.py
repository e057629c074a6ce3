"""The reference: a version's traffic while it was rolled out, kept to compare later traffic with."""

from pathlib import Path

from sluice.monitoring.traffic.files import scan_traffic, write_traffic


def save_reference(
    traffic: Path, out: Path, version: str, since: float, *, until: float | None = None, source: str = "replay"
) -> int:
    """Save the version's records of one source with since <= time < until as its reference; return how many.

    They replace an earlier reference of the version, unless none are found; other versions' references stay. Text is
    left out: the reference outlives the traffic, and no test needs it.
    """
    frame = scan_traffic(traffic, since, until).frame
    chosen = frame[(frame["version"] == version) & (frame["source"] == source)]
    written = set(write_traffic(chosen.assign(prompt_text="", completion_text=""), out))
    for file in out.glob(f"hour=*/version={version}/*.parquet"):
        if written and file not in written:
            file.unlink()
    return len(chosen)
